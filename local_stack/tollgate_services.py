"""The services of a Tollgate stack as a table: command, environment, needs, readiness, stop. Read it from top to bottom."""

import base64
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum, auto
from typing import Final

from gateway_core import certificates
from gateway_core.api_keys import LIVE_PREFIX, OPERATOR_PREFIX, new_key
from gateway_core.contract import GATEWAY_HEALTH_PATH, Peer
from local_stack import probes
from local_stack.clickhouse import ClickHouse
from local_stack.data_directory import DataDirectory
from local_stack.envoy import Envoy, local_bootstrap
from local_stack.instances import instance, instances
from local_stack.ports import PORTS_OF_EACH_INSTANCE, replicas_of
from local_stack.postgres import Postgres
from local_stack.secret_files import SecretFiles
from local_stack.service import Command, Ready, Service, Task
from local_stack.settings import Environment
from local_stack.valkey import Valkey

HOST: Final = "127.0.0.1"

REPLICATED: Final = ("control_plane", "ext_authz", "billing_sink", "translator", "response_cache")
SERVICES: Final = ("postgres", "valkey", "clickhouse", "simulator", *REPLICATED, "envoy")
TASKS: Final = ("migrate_billing_sink", "migrate_control_plane", "seed_demo")
"""The names in the tables below, for those who have no stack to make a table of."""


class Secret(StrEnum):
    """The secrets of a stack. A value is the name of its file and, but for the case, of the setting it fills."""

    TOLLGATE_API_KEY_PEPPER = auto()
    TOLLGATE_CREDENTIAL_KEY = auto()
    TOLLGATE_RESPONSE_CACHE_KEY = auto()
    TOLLGATE_DEMO_API_KEY = auto()
    TOLLGATE_OPERATOR_TOKEN = auto()
    TOLLGATE_POSTGRES_DSN = auto()
    TOLLGATE_REDIS_URL = auto()
    TOLLGATE_CLICKHOUSE_URL = auto()
    TOLLGATE_STRIPE_SECRET_KEY = auto()
    TOLLGATE_STRIPE_WEBHOOK_SECRET = auto()
    # Parts of the URLs; no service reads them by these names.
    POSTGRES_PASSWORD = auto()
    VALKEY_PASSWORD = auto()
    CLICKHOUSE_PASSWORD = auto()


@dataclass(frozen=True, slots=True)
class Servers:
    """The stores of one stack."""

    postgres: Postgres
    valkey: Valkey
    clickhouse: ClickHouse


@dataclass(frozen=True, slots=True)
class Keys:
    """What a user of the stack is given."""

    api_key: str
    operator_token: str


def keys(directory: DataDirectory) -> Keys:
    """The demo key and the operator token, made at the first start."""
    files = SecretFiles(directory.secrets)
    return Keys(
        files.kept(Secret.TOLLGATE_DEMO_API_KEY, lambda: new_key(LIVE_PREFIX, secrets.token_bytes).get_secret_value()),
        files.kept(
            Secret.TOLLGATE_OPERATOR_TOKEN, lambda: new_key(OPERATOR_PREFIX, secrets.token_bytes).get_secret_value()
        ),
    )


def servers(directory: DataDirectory, ports: Mapping[str, int], environment: Environment) -> Servers:
    """The stores, their passwords made at the first start."""
    files = SecretFiles(directory.secrets)
    return Servers(
        Postgres(directory.postgres, ports["postgres"], files.kept(Secret.POSTGRES_PASSWORD, secrets.token_hex)),
        Valkey(directory.run / "valkey.conf", ports["valkey"], files.kept(Secret.VALKEY_PASSWORD, secrets.token_hex)),
        ClickHouse(
            directory.clickhouse,
            ports["clickhouse"],
            directory.secrets / Secret.CLICKHOUSE_PASSWORD,
            files.kept(Secret.CLICKHOUSE_PASSWORD, secrets.token_hex),
            environment.general,
        ),
    )


def write_secrets(directory: DataDirectory, stores: Servers, now: datetime) -> None:
    """Put everything the services read from TOLLGATE_SECRETS_DIR where they look for it, and the certificates beside it."""
    files = SecretFiles(directory.secrets)
    files.kept(Secret.TOLLGATE_API_KEY_PEPPER, secrets.token_hex)
    for key in (Secret.TOLLGATE_CREDENTIAL_KEY, Secret.TOLLGATE_RESPONSE_CACHE_KEY):
        files.kept(key, lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())
    # Of the simulator's stand-in for Stripe, which knows the second and takes any of the first.
    files.kept(Secret.TOLLGATE_STRIPE_SECRET_KEY, lambda: f"sk_test_{secrets.token_hex()}")
    files.kept(Secret.TOLLGATE_STRIPE_WEBHOOK_SECRET, lambda: f"whsec_{secrets.token_hex()}")
    files.put(Secret.TOLLGATE_POSTGRES_DSN, stores.postgres.dsn)
    files.put(Secret.TOLLGATE_REDIS_URL, stores.valkey.url)
    files.put(Secret.TOLLGATE_CLICKHOUSE_URL, stores.clickhouse.url)
    if not certificates.are_good(files.read(certificates.FILES), now):
        for name, content in certificates.issue(now).items():
            files.put(name, content)


def service_names(replicas: int) -> list[str]:
    """The names in the table of a stack that has so many of each service of ours, in no particular order."""
    further = [instance(name, number) for number in range(2, replicas + 1) for name in REPLICATED]
    return [*SERVICES, *further]


def stripe_url(ports: Mapping[str, int]) -> str:
    """Where the simulator stands in for Stripe."""
    return f"http://{HOST}:{ports['simulator']}/stripe"


def service_environment(directory: DataDirectory, ports: Mapping[str, int], number: int = 1) -> dict[str, str]:
    """The settings of all services; each reads its own. No secret is among them.

    Args:
        directory: of the stack.
        ports: of the stack.
        number: which instance of its service it is.
    """

    def own(name: str) -> str:
        return str(ports[instance(name, number)])

    def all_of(name: str) -> str:
        return ",".join(f"{HOST}:{ports[each]}" for each in instances(name, replicas_of(ports)))

    def tls(setting: str, peer: Peer) -> dict[str, str]:
        return {
            f"TOLLGATE_{setting}_TLS_CERTIFICATE": str(directory.secrets / certificates.certificate_file(peer)),
            f"TOLLGATE_{setting}_TLS_KEY": str(directory.secrets / certificates.key_file(peer)),
            f"TOLLGATE_{setting}_TLS_CA": str(directory.secrets / certificates.AUTHORITY_FILE),
        }

    return {
        **tls("XDS", Peer.CONTROL_PLANE),
        **tls("EXT_AUTHZ", Peer.EXT_AUTHZ),
        **tls("BILLING_SINK", Peer.BILLING_SINK),
        **tls("TRANSLATOR", Peer.TRANSLATOR),
        **tls("RESPONSE_CACHE", Peer.RESPONSE_CACHE),
        "TOLLGATE_SECRETS_DIR": str(directory.secrets),
        "TOLLGATE_SPOOL_DIR": str(directory.spool),
        "TOLLGATE_GATEWAY_HOST": HOST,
        "TOLLGATE_GATEWAY_PORT": str(ports["gateway"]),
        "TOLLGATE_KEEPERS_HOST": HOST,
        "TOLLGATE_KEEPERS_PORT": str(ports["keepers"]),
        "TOLLGATE_CONTROL_PLANE_HOST": HOST,
        "TOLLGATE_CONTROL_PLANE_PORT": own("control_plane"),
        "TOLLGATE_CONTROL_PLANE_METRICS_HOST": HOST,
        "TOLLGATE_CONTROL_PLANE_METRICS_PORT": own("control_plane_metrics"),
        "TOLLGATE_CONTROL_PLANE_ENDPOINTS": all_of("control_plane"),
        # The simulator is one, and a newcomer's own server on this machine.
        "TOLLGATE_PRIVATE_PROVIDERS_ALLOWED": "true",
        "TOLLGATE_PRIVATE_WEBHOOKS_ALLOWED": "true",
        "TOLLGATE_XDS_HOST": HOST,
        "TOLLGATE_XDS_PORT": own("xds"),
        "TOLLGATE_EXT_AUTHZ_HOST": HOST,
        "TOLLGATE_EXT_AUTHZ_PORT": own("ext_authz"),
        "TOLLGATE_EXT_AUTHZ_ENDPOINTS": all_of("ext_authz"),
        "TOLLGATE_EXT_AUTHZ_METRICS_HOST": HOST,
        "TOLLGATE_EXT_AUTHZ_METRICS_PORT": own("ext_authz_metrics"),
        "TOLLGATE_BILLING_SINK_HOST": HOST,
        "TOLLGATE_BILLING_SINK_PORT": own("billing_sink"),
        "TOLLGATE_BILLING_SINK_ENDPOINTS": all_of("billing_sink"),
        "TOLLGATE_BILLING_SINK_METRICS_HOST": HOST,
        "TOLLGATE_BILLING_SINK_METRICS_PORT": own("billing_sink_metrics"),
        "TOLLGATE_TRANSLATOR_HOST": HOST,
        "TOLLGATE_TRANSLATOR_PORT": own("translator"),
        "TOLLGATE_TRANSLATOR_ENDPOINTS": all_of("translator"),
        "TOLLGATE_TRANSLATOR_METRICS_HOST": HOST,
        "TOLLGATE_TRANSLATOR_METRICS_PORT": own("translator_metrics"),
        "TOLLGATE_RESPONSE_CACHE_HOST": HOST,
        "TOLLGATE_RESPONSE_CACHE_PORT": own("response_cache"),
        "TOLLGATE_RESPONSE_CACHE_ENDPOINTS": all_of("response_cache"),
        "TOLLGATE_RESPONSE_CACHE_METRICS_HOST": HOST,
        "TOLLGATE_RESPONSE_CACHE_METRICS_PORT": own("response_cache_metrics"),
        "TOLLGATE_SIMULATOR_HOST": HOST,
        "TOLLGATE_SIMULATOR_PORT": str(ports["simulator"]),
        "TOLLGATE_SIMULATOR_URL": f"http://{HOST}:{ports['simulator']}",
        "TOLLGATE_STRIPE_API_BASE": stripe_url(ports),
        # One of the replicas: Stripe knows one address, too.
        "TOLLGATE_SIMULATOR_STRIPE_WEBHOOK_URL": f"http://{HOST}:{ports['control_plane']}/webhooks/stripe",
    }


def tasks(directory: DataDirectory, ports: Mapping[str, int], environment: Environment) -> list[Task]:
    """What runs once in each start. The migrations are of two services and do not wait for each other."""
    variables = {**environment.general, **service_environment(directory, ports)}
    with_keys = {**variables, **environment.provider_keys}
    return [
        Task(
            "migrate_billing_sink",
            _python("billing_sink", "migrate", environment=variables),
            ("postgres", "clickhouse"),
        ),
        Task("migrate_control_plane", _python("control_plane", "migrate", environment=variables), ("postgres",)),
        Task(
            "seed_demo",
            _python("control_plane", "seed-demo", environment=with_keys),
            ("migrate_billing_sink", "migrate_control_plane"),
        ),
    ]


def services(
    directory: DataDirectory, ports: Mapping[str, int], environment: Environment, stores: Servers
) -> list[Service]:
    """What runs as long as the stack does, in the order of the start. The ports say how many of each service of ours."""
    variables = {**environment.general, **service_environment(directory, ports)}
    replicas = [_Replica.of(number, directory, ports, environment) for number in range(1, replicas_of(ports) + 1)]
    control_planes = [replica.control_plane() for replica in replicas]
    return [
        stores.postgres.service(),
        stores.valkey.service(),
        stores.clickhouse.service(),
        Service(
            "simulator",
            _python("simulator", environment=variables),
            ready=lambda _: probes.http_get(ports["simulator"], "/readyz"),
            ports={"simulator": ports["simulator"]},
            stop_stage=2,
        ),
        *control_planes,
        *(replica.ext_authz() for replica in replicas),
        *(replica.billing_sink() for replica in replicas),
        *(replica.translator() for replica in replicas),
        *(replica.response_cache() for replica in replicas),
        Envoy(
            directory.run / "envoy.json",
            local_bootstrap(
                admin_port=ports["envoy_admin"],
                xds_ports=[ports[name] for name in instances("xds", len(replicas))],
                certificates=directory.secrets,
            ),
        ).service(
            # Not before: an Envoy that finds nobody to ask waits before it asks again.
            needs=(*(service.name for service in control_planes), "simulator"),
            ports={"gateway": ports["gateway"], "keepers": ports["keepers"]},
            serves=lambda _: probes.http_get(ports["gateway"], GATEWAY_HEALTH_PATH),
        ),
    ]


@dataclass(frozen=True, slots=True)
class _Replica:
    """One instance of each service of ours. Whichever number it has, it needs the same and stops with the others."""

    number: int
    ports: Mapping[str, int]
    """Its own, by the names that the first instance's have."""
    variables: Mapping[str, str]

    @classmethod
    def of(
        cls, number: int, directory: DataDirectory, ports: Mapping[str, int], environment: Environment
    ) -> "_Replica":
        own = {name: ports[instance(name, number)] for name in PORTS_OF_EACH_INSTANCE}
        return cls(number, own, {**environment.general, **service_environment(directory, ports, number)})

    def control_plane(self) -> Service:
        return Service(
            self._named("control_plane"),
            _python("control_plane", environment=self.variables),
            ready=self._is_ready("control_plane_metrics"),
            needs=("postgres", "valkey", "seed_demo"),
            ports=self._listens_on("control_plane", "control_plane_metrics", "xds"),
            stop_stage=2,
        )

    def ext_authz(self) -> Service:
        return Service(
            self._named("ext_authz"),
            _python("ext_authz", environment=self.variables),
            ready=self._is_ready("ext_authz_metrics"),
            needs=("postgres", "valkey", "seed_demo"),
            ports=self._listens_on("ext_authz", "ext_authz_metrics"),
            stop_stage=2,
        )

    def billing_sink(self) -> Service:
        return Service(
            self._named("billing_sink"),
            _python("billing_sink", environment=self.variables),
            ready=self._is_ready("billing_sink_metrics"),
            needs=("postgres", "clickhouse", "seed_demo"),
            ports=self._listens_on("billing_sink", "billing_sink_metrics"),
            # After Envoy: what it has just written to the spool is still taken into the ledger.
            stop_stage=1,
            stop_grace_s=2.0,
        )

    def translator(self) -> Service:
        return Service(
            self._named("translator"),
            _python("translator", environment=self.variables),
            ready=self._is_ready("translator_metrics"),
            ports=self._listens_on("translator", "translator_metrics"),
            stop_stage=2,
        )

    def response_cache(self) -> Service:
        return Service(
            self._named("response_cache"),
            _python("response_cache", environment=self.variables),
            ready=self._is_ready("response_cache_metrics"),
            needs=("valkey",),
            ports=self._listens_on("response_cache", "response_cache_metrics"),
            stop_stage=2,
        )

    def _named(self, service: str) -> str:
        return instance(service, self.number)

    def _listens_on(self, *names: str) -> dict[str, int]:
        return {instance(name, self.number): self.ports[name] for name in names}

    def _is_ready(self, port: str) -> Ready:
        return lambda _: probes.http_get(self.ports[port], "/readyz")


def _python(module: str, *arguments: str, environment: Mapping[str, str]) -> Command:
    # -P: the working directory is no place to import from.
    return Command((sys.executable, "-P", "-m", module, *arguments), environment)
