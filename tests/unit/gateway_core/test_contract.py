"""The names in contract.py on the one side, Lua and Envoy's configuration on the other: neither may know more."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from billing_sink.unfinished import Unfinished
from control_plane.catalog.model import Policy
from control_plane.catalog.strategies import TRIAL_EVERY, StickyBy, Strategy
from control_plane.xds.clusters import COST_TIMEOUT_MS, KEPT_TIMEOUT_MS
from control_plane.xds.listeners import LISTENER
from control_plane.xds.lua import script
from control_plane.xds.protobuf import CLUSTER_TYPE, LISTENER_TYPE, ROUTE_TYPE
from control_plane.xds.routes import RETRIABLE_STATUS, RETRY_ON, ROUTE_CONFIG
from control_plane.xds.translate import resources
from gateway_core import errors
from gateway_core.api_keys import PREFIX_BY_MODE, new_key
from gateway_core.clusters import (
    Cluster,
    capped_cluster,
    own_capped_cluster,
    own_key_cluster,
    own_translated_cluster,
    provider_cluster,
    provider_of_cluster,
    session_cluster,
    translated_cluster,
)
from gateway_core.contract import (
    COST_PATH,
    KEEP_PATH,
    SESSIONS_SERVICE,
    USE_METHOD,
    BootstrapSecret,
    Choice,
    GrantField,
    Header,
    Metadata,
    Peer,
    RequestField,
    RouteField,
    UnfinishedField,
    UseField,
)
from gateway_core.endpoints import FACTS, SOLD, Dialect, Endpoint
from gateway_core.kept import InvalidKeptNameError, checked_id
from gateway_core.networks import parse_networks
from gateway_core.providers import ProviderKind
from gateway_core.route_keys import (
    BATCHES_ROUTE_KEY,
    kept_route_key,
    pinned_route_key,
    route_key,
    simulator_kept_route_key,
    simulator_route_key,
)
from gateway_core.settings import HostPort
from gateway_core.spool_fields import SPOOL_VERSION, AttemptField, SpoolField
from tests.support.catalogs import catalog, deployment, provider, settings
from tests.support.databases import ROOT

# Less the names of modules, one of which is a field's as well.
FRONT = re.sub(r'(require\(|preload\[)"\w+"', r"\1", script("front"))
UPSTREAM = script("upstream")
TOLD_BY_THE_BODY = {Endpoint.STORED_RESPONSES}
"""At the path of another one: which of them is asked for, is known once the body is read."""
TRANSLATORS = (HostPort("127.0.0.1", 9005),)
CACHES = (HostPort("127.0.0.1", 9006),)
CATALOG = replace(
    catalog(
        [
            replace(provider("a", credential="secret"), own_keys_allowed=True),
            provider("b"),
            replace(provider("c", ProviderKind.MISTRAL, credential="secret"), headers={"x-team": "search"}),
        ],
        [deployment("m", "a"), deployment("m", "c", priority=1), deployment("kept", "a"), deployment("kept", "b")],
        policies={"kept": Policy(sticky_by=StickyBy.USER, cache_ttl_s=60)},
    ),
    own_keys_as_of=7,
)


def names(holder: type) -> set[str]:
    return {str(value) for name, value in vars(holder).items() if name.isupper()}


def code(lua: str) -> str:
    return "\n".join(line.partition("--")[0] for line in lua.splitlines())


def assigned(lua: str, table: str) -> set[str]:
    """The fields that are assigned to, alone or several at once; a comparison is no assignment."""
    left_sides = re.findall(r"(?:^|[;\s])((?:[\w.]+\s*,\s*)*[\w.]+)\s*=(?!=)", lua)
    return {name for side in left_sides for name in re.findall(rf"\b{table}\.(\w+)", side)}


def resource_texts(type_url: str) -> str:
    # Behind proxies and with a translator: it says more then.
    told = settings(
        trusted_proxies=parse_networks("10.0.0.0/8"), translator_endpoints=TRANSLATORS, response_cache_endpoints=CACHES
    )
    return "\n".join(json.dumps(resource) for name, resource in resources(CATALOG, told) if name == type_url)


def access_logs() -> list[dict[str, Any]]:
    [listener] = [
        json.loads(json.dumps(resource))
        for name, resource in resources(CATALOG, settings())
        if name == LISTENER_TYPE and resource["name"] == LISTENER
    ]
    [chain] = listener["filter_chains"]
    [manager] = chain["filters"]
    logs: list[dict[str, Any]] = manager["typed_config"]["access_log"]
    return logs


def access_log_line() -> dict[str, object]:
    [line] = [log["typed_config"]["log_format"]["json_format"] for log in access_logs() if log["name"] == "spool"]
    return cast("dict[str, object]", line)


@pytest.mark.parametrize(
    ("lua", "fields"),
    [
        ("known.a = 1", {"a"}),
        ("known.a=1", {"a"}),
        ("  known.a, known.b = f()", {"a", "b"}),
        ("if x then known.a = known.b end", {"a"}),
        ("if known.a == 1 then known.b = known.c == 2 end", {"b"}),
        ("local x = known.a ~= nil and known.b <= 1 and known.c >= 2", set()),
        ("unknown.a = 1", set()),
    ],
)
def test_a_comparison_is_not_taken_for_an_assignment(lua: str, fields: set[str]) -> None:
    assert assigned(lua, "known") == fields


def test_front_lua_writes_exactly_the_request_fields() -> None:
    assert assigned(code(FRONT), "known") == names(RequestField)
    written = code(script("request"))
    assert written.count('"request",') == written.count('set(NAMESPACE, "request", known)')


def test_the_scripts_read_exactly_the_route_fields_and_every_route_has_them() -> None:
    of_a_cluster = {RouteField.OUTPUT_BOUND, RouteField.REFUSES_STREAM_OPTIONS, RouteField.HEADERS}
    of_all_routes = {RouteField.OWN_KEYS_AS_OF}
    assert set(re.findall(r'prepared:get\("(\w+)"\)', code(FRONT))) == names(RouteField) - of_a_cluster - of_all_routes
    assert set(re.findall(r':metadata\(\):get\("(\w+)"\)', code(FRONT))) == {RouteField.CHAIN, *of_all_routes}
    assert set(re.findall(r'parameters:get\("(\w+)"\)', code(UPSTREAM))) == {
        RouteField.PATH,
        RouteField.MODEL,
        *of_a_cluster,
    }
    [route] = [r for name, r in resources(CATALOG, settings()) if name == ROUTE_TYPE and r["name"] == ROUTE_CONFIG]
    for name in names(RouteField):
        assert f'"{name}": ' in json.dumps(route)


def test_the_codes_in_the_scripts_are_those_of_errors_py() -> None:
    known = {value.code for value in vars(errors).values() if isinstance(value, errors.ApiError)}
    quoted = set(re.findall(r'refuse\(h, \w*(?:\{\})?, "\d+", "(\w+)"', code(FRONT)))
    quoted |= set(re.findall(r'"\d{3}", "([a-z]\w+)"', FRONT + UPSTREAM))
    quoted |= set(re.findall(r'return "([a-z]\w+)", "', FRONT))
    quoted |= set(re.findall(r'status = "\d{3}", code = "(\w+)"', FRONT))
    assert len(quoted) > 6
    assert quoted <= known


def test_front_lua_writes_exactly_the_metadata_keys_under_its_namespace() -> None:
    written = {
        key
        for arguments in re.findall(r":set\(NAMESPACE,([^,]*),", code(FRONT))
        for key in re.findall(r'"(\w+)"', arguments)
    } | set(re.findall(r'\bsay\("(\w+)"', code(FRONT)))
    elsewhere = {Metadata.ORDER_NAMESPACE, Metadata.PRIORITY_GROUPS, Metadata.ATTEMPT_NAMESPACE}
    assert written == names(Metadata) - {Metadata.NAMESPACE, Metadata.GRANT_NAMESPACE, Metadata.TRANSLATED} - elsewhere
    namespace, key = f'"{Metadata.ORDER_NAMESPACE}"', f'"{Metadata.PRIORITY_GROUPS}"'
    assert f"ORDER_NAMESPACE, PRIORITY_GROUPS = {namespace}, {key}" in code(FRONT)


def test_the_scripts_tell_of_sessions_in_the_words_of_the_contract() -> None:
    [unfinished] = re.findall(r'say\("unfinished", format\((.*?)session\.open', code(FRONT), re.DOTALL)
    assert set(re.findall(r'"(\w+)":', unfinished)) == names(UnfinishedField)
    assert names(UnfinishedField) == {each.name for each in fields(Unfinished)}
    [use] = re.findall(r"format\('(\{\"org_id\".*?\})'", code(FRONT))
    assert set(re.findall(r'"(\w+)":', use)) == names(UseField)
    assert f'local PATH = "/{SESSIONS_SERVICE}/{USE_METHOD}"' in code(FRONT)


def test_front_lua_knows_every_choice_that_it_makes_and_how_rare_a_trial_is() -> None:
    told_by_the_route = {each.value for each in Strategy} - {Choice.LOWEST_LATENCY}
    assert all(f'"{choice}"' in code(FRONT) for choice in {*Choice} - told_by_the_route)
    assert all(f"{each} = {{" in code(FRONT) for each in StickyBy)
    assert f"TRIAL_EVERY = {TRIAL_EVERY} " in code(FRONT)


def test_a_lease_is_for_requests_that_admission_would_see_as_equal_but_for_its_bounds() -> None:
    lua = code((ROOT / "envoy" / "lua" / "leases.lua").read_text(encoding="utf-8"))
    shape = lua[lua.index("local function shape_of") : lua.index("local function spend")]
    admission = (ROOT / "ext_authz" / "check_request.py").read_text(encoding="utf-8")
    # What names something kept, or brings something to keep, is asked about each time.
    never_lent = {RequestField.NAMED, RequestField.PROVIDER}
    looked_at = {getattr(RequestField, name) for name in re.findall(r"RequestField\.(\w+)", admission)}
    # The route that is part of the shape says the endpoint, the mode and the model; spend compares what it stands for.
    in_the_route = {RequestField.ENDPOINT, RequestField.MODE, RequestField.MODEL}
    bounded = {RequestField.BODY_BYTES, RequestField.MAX_OUTPUT_TOKENS}
    about_leases = {RequestField.LEASE_WANTED, RequestField.UNSPENT, RequestField.OWN_KEYS_AS_OF}
    compared = set(re.findall(r"known\.(\w+)", shape))
    assert compared == looked_at - in_the_route - bounded - about_leases - never_lent - {RequestField.OFFERING}
    spend = lua[lua.index("local function spend") : lua.index("local function ask")]
    assert set(re.findall(r"known\.(\w+)", spend)) == {*bounded, RequestField.OFFERING, RequestField.OWN_KEYS_AS_OF}


def test_lua_uses_the_namespaces_of_the_contract() -> None:
    for lua in (FRONT, UPSTREAM):
        assert f'local NAMESPACE = "{Metadata.NAMESPACE}"' in lua
        assert f'local GRANT_NAMESPACE = "{Metadata.GRANT_NAMESPACE}"' in lua
    told = set(re.findall(r"\btold\.(\w+)", code(UPSTREAM)))
    assert told == {Metadata.PLAN, Metadata.TRANSLATED, Metadata.REQUEST}


def test_what_lua_reads_from_a_grant_or_a_request_is_a_field_of_it() -> None:
    assert set(re.findall(r"\bgrant\.(\w+)", code(FRONT) + code(UPSTREAM))) <= names(GrantField)
    read = set(re.findall(r"\brequest\.(\w+)", code(FRONT))) - {Metadata.REQUEST}
    assert read
    assert read <= names(RequestField)


@pytest.mark.parametrize("script", [FRONT, UPSTREAM], ids=["front", "upstream"])
def test_every_internal_header_in_lua_is_in_the_contract(script: str) -> None:
    assert set(re.findall(r'"(x-tg-[a-z-]+)"', code(script))) <= names(Header)


def test_every_header_of_the_contract_is_used_by_lua_the_listener_or_a_route() -> None:
    used = code(FRONT) + code(UPSTREAM) + "".join(map(resource_texts, (LISTENER_TYPE, ROUTE_TYPE, CLUSTER_TYPE)))
    assert {name for name in names(Header) if name not in used} == set()


def test_every_internal_header_in_the_configuration_is_in_the_contract() -> None:
    configured = "".join(map(resource_texts, (LISTENER_TYPE, ROUTE_TYPE, CLUSTER_TYPE)))
    used = set(re.findall(r"x-tg-[a-z-]*[a-z]", configured.replace(json.dumps(FRONT)[1:-1], "")))
    assert used
    assert used <= names(Header)


def test_the_access_log_writes_exactly_the_fields_of_a_spool_line() -> None:
    assert set(access_log_line()) == names(SpoolField)


def test_the_log_of_attempts_writes_exactly_the_fields_of_its_lines_into_the_same_file() -> None:
    [listener] = [
        json.loads(json.dumps(resource))
        for name, resource in resources(CATALOG, settings())
        if name == LISTENER_TYPE and resource["name"] == LISTENER
    ]
    [*_, router] = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    [log] = router["typed_config"]["upstream_log"]
    assert set(log["typed_config"]["log_format"]["json_format"]) == names(AttemptField)
    [spool] = [each for each in access_logs() if each["name"] == "spool"]
    assert log["typed_config"]["path"] == spool["typed_config"]["path"]


def test_the_access_log_reads_only_metadata_that_somebody_writes() -> None:
    read = re.findall(r"%DYNAMIC_METADATA\(([^)]*)\)%", json.dumps(access_log_line()))
    expected = {Metadata.GRANT_NAMESPACE} | {
        f"{Metadata.NAMESPACE}:{key}"
        for key in (
            Metadata.REQUEST,
            Metadata.LEASE,
            Metadata.USAGE_FIRST,
            Metadata.USAGE_LAST,
            Metadata.SERVICE_TIER,
            Metadata.KEPT,
            Metadata.SSE_EVENTS,
            Metadata.SSE_BESIDE_BYTES,
            Metadata.UNFINISHED,
            Metadata.CACHE,
        )
    }
    assert set(read) == expected
    assert len(read) == len(expected)


def test_envoy_tells_ext_authz_of_requests_that_have_a_reservation_and_of_no_others() -> None:
    [log] = [log for log in access_logs() if log["name"] == "limits"]
    told = [each["metadata_filter"] for each in log["filter"]["or_filter"]["filters"]]
    assert not any(each["match_if_key_not_found"] for each in told)
    assert [(each["matcher"]["filter"], each["matcher"]["path"]) for each in told] == [
        (Metadata.GRANT_NAMESPACE, [{"key": key}]) for key in (GrantField.RESERVED_AT, GrantField.EXPECTED_TOKENS)
    ]
    common = log["typed_config"]["common_config"]
    assert common["grpc_service"] == {"envoy_grpc": {"cluster_name": Cluster.EXT_AUTHZ}}


def test_the_scripts_try_again_where_routes_do() -> None:
    assert f'RETRY_ON = "{RETRY_ON}"' in FRONT
    assert f'RETRIABLE_STATUS = "{",".join(map(str, RETRIABLE_STATUS))}"' in FRONT


def test_the_ext_authz_filter_bears_the_name_its_metadata_is_found_under() -> None:
    assert json.dumps({"name": Metadata.GRANT_NAMESPACE})[1:-1] in resource_texts(LISTENER_TYPE)


def test_every_cluster_of_the_contract_is_configured() -> None:
    bootstrap = (ROOT / "envoy" / "bootstrap.yaml").read_text(encoding="utf-8")
    assert f"cluster_name: {Cluster.XDS}" in bootstrap
    told = settings(translator_endpoints=TRANSLATORS, response_cache_endpoints=CACHES)
    configured = {resource["name"] for name, resource in resources(CATALOG, told) if name == CLUSTER_TYPE}
    ours = {
        *(Cluster.EXT_AUTHZ, Cluster.CONTROL_PLANE, Cluster.BILLING_SINK, Cluster.SIMULATOR, Cluster.TRANSLATOR),
        *(Cluster.RESPONSE_CACHE, Cluster.BILLING_SINK_KEPT, Cluster.BILLING_SINK_BATCHES),
    }
    foreign = {
        "a": (Dialect.ANTHROPIC, Dialect.GEMINI),
        "b": (Dialect.ANTHROPIC, Dialect.GEMINI),
        "c": (Dialect.ANTHROPIC, Dialect.RESPONSES, Dialect.GEMINI),
    }
    of_providers = {translated_cluster(provider, dialect) for provider in foreign for dialect in foreign[provider]}
    with_own_keys = {own_translated_cluster("a", dialect) for dialect in foreign["a"]}
    assert configured == ours | of_providers | with_own_keys | set(map(provider_cluster, foreign))


def test_the_bootstrap_holds_the_secrets_that_clusters_name_and_both_know_whom_they_dial() -> None:
    static = yaml.safe_load((ROOT / "envoy" / "bootstrap.yaml").read_text(encoding="utf-8"))["static_resources"]
    assert {secret["name"] for secret in static["secrets"]} == names(BootstrapSecret)
    dialled = {cluster["name"]: cluster for cluster in static["clusters"]}
    dialled |= {
        str(resource["name"]): resource
        for name, resource in resources(
            CATALOG, settings(translator_endpoints=TRANSLATORS, response_cache_endpoints=CACHES)
        )
        if name == CLUSTER_TYPE
    }
    contexts = []
    for cluster, peer in (
        (Cluster.XDS, Peer.CONTROL_PLANE),
        (Cluster.EXT_AUTHZ, Peer.EXT_AUTHZ),
        (Cluster.BILLING_SINK, Peer.BILLING_SINK),
        (Cluster.BILLING_SINK_KEPT, Peer.BILLING_SINK),
        (Cluster.BILLING_SINK_BATCHES, Peer.BILLING_SINK),
        (Cluster.TRANSLATOR, Peer.TRANSLATOR),
        (Cluster.RESPONSE_CACHE, Peer.RESPONSE_CACHE),
    ):
        text = json.dumps(dialled[cluster]["transport_socket"], sort_keys=True)
        assert f'{{"exact": "{peer}"}}' in text
        contexts.append(text.replace(f'"{peer}"', '"peer"'))
    assert len(set(contexts)) == 1


def test_lua_serves_exactly_the_endpoints_at_their_paths() -> None:
    [table] = re.findall(r"local ENDPOINTS = \{(.*?)\n\}", FRONT, re.DOTALL)
    served = re.findall(r'\["([A-Z]+ [^"]*)"\] = "(\w+)"', table)
    assert {endpoint: asked for asked, endpoint in served} == {
        str(name): f"{facts.method} {facts.path}" for name, facts in FACTS.items() if name not in TOLD_BY_THE_BODY
    }
    assert table.count("=") == len(served) == len(Endpoint) - len(TOLD_BY_THE_BODY)
    assert all(f'known.endpoint = "{name}"' in FRONT for name in TOLD_BY_THE_BODY)


def test_lua_knows_the_body_of_every_endpoint_that_is_sold_and_where_its_output_is_bounded() -> None:
    text = code((ROOT / "envoy" / "lua" / "bodies.lua").read_text(encoding="utf-8"))
    table = text[text.rindex("return {") :]
    bodies = {
        name: (re.findall(r'[^\w]bound = "(\w+)"', body), "is_anthropic = true" in body, " files = " in body)
        for name, body in re.findall(r"^  (\w+) = \{(.*?)(?=^  \w+ = \{|\Z)", table, re.DOTALL | re.MULTILINE)
    }
    assert bodies == {
        str(endpoint): (
            [FACTS[endpoint].output_bound] if FACTS[endpoint].output_bound else [],
            FACTS[endpoint].error_form is errors.ErrorForm.ANTHROPIC,
            FACTS[endpoint].is_form,
        )
        for endpoint in {*SOLD, Endpoint.FILE_UPLOAD, Endpoint.BATCH_CREATE} - TOLD_BY_THE_BODY
        if not FACTS[endpoint].is_session
    }


def test_every_endpoint_has_facts_and_no_colon_in_its_name() -> None:
    assert set(FACTS) == set(Endpoint)
    assert not any(":" in endpoint for endpoint in Endpoint)
    assert len({(facts.method, facts.path) for facts in FACTS.values()}) == len(Endpoint) - len(TOLD_BY_THE_BODY)


def test_lua_words_errors_in_the_form_of_the_endpoint_and_by_the_classes_of_errors_py() -> None:
    text = code((ROOT / "envoy" / "lua" / "errors.lua").read_text(encoding="utf-8"))
    [endpoints] = re.findall(r"local ANTHROPIC = \{([^}]*)\}", text)
    anthropic = {endpoint for endpoint in Endpoint if FACTS[endpoint].error_form is errors.ErrorForm.ANTHROPIC}
    assert set(re.findall(r"(\w+) = true", endpoints)) == anthropic
    assert {endpoint for endpoint in SOLD if FACTS[endpoint].dialect is Dialect.ANTHROPIC} == anthropic
    [endpoints] = re.findall(r"local GOOGLE = \{([^}]*)\}", text)
    google = {endpoint for endpoint in Endpoint if FACTS[endpoint].error_form is errors.ErrorForm.GOOGLE}
    assert set(re.findall(r"(\w+) = true", endpoints)) == google
    assert {endpoint for endpoint in SOLD if FACTS[endpoint].dialect is Dialect.GEMINI} == google
    [statuses] = re.findall(r"local GOOGLE_STATUSES = \{([^}]*)\}", text)
    named = dict(re.findall(r'\["(\d+)"\] = "(\w+)"', statuses))
    [classes] = re.findall(r"local ANTHROPIC_TYPES = \{([^}]*)\}", text)
    told = dict(re.findall(r'\["(\d+)"\] = "(\w+)"', classes))
    for status in (400, 401, 402, 403, 404, 405, 408, 409, 413, 422, 429, 500, 502, 503, 504):
        other = "invalid_request_error" if status < 500 else "api_error"
        assert told.get(str(status), other) == errors.anthropic_type(status)
        other = "INVALID_ARGUMENT" if status < 500 else "UNAVAILABLE"
        assert named.get(str(status), other) == errors.google_status(status)
    assert f'PATHS = "{errors.ANTHROPIC_PATHS}", "{errors.GOOGLE_PATHS}"' in text


def test_a_provider_is_found_again_in_the_name_of_its_cluster() -> None:
    assert provider_of_cluster(provider_cluster("openai")) == "openai"
    assert provider_of_cluster(translated_cluster("openai", Dialect.ANTHROPIC)) == "openai"
    assert provider_of_cluster(Cluster.EXT_AUTHZ) is None
    assert provider_of_cluster("") is None


def test_the_clusters_of_a_provider_have_names_of_their_own_and_all_lead_to_it() -> None:
    clusters = [
        *(name("openai") for name in (provider_cluster, capped_cluster, session_cluster, own_capped_cluster)),
        own_key_cluster("openai", "org_1"),
        *(name("openai", each) for name in (translated_cluster, own_translated_cluster) for each in Dialect),
    ]
    assert len(clusters) == len(set(clusters))
    assert {provider_of_cluster(each) for each in clusters} == {"openai"}


def test_different_endpoints_and_models_never_share_a_route_key() -> None:
    keys = {route_key(endpoint, model) for endpoint in Endpoint for model in ("", "m", "chat:m", "a/b:c")}
    assert len(keys) == len(Endpoint) * 4
    others = {simulator_route_key(endpoint) for endpoint in Endpoint} | {
        simulator_kept_route_key(),
        kept_route_key("p"),
    }
    others |= {pinned_route_key(Endpoint.STORED_RESPONSES, provider, "m") for provider in ("p", "q")}
    assert len(others) == len(Endpoint) + 4
    assert not keys & others
    assert not {"test", "kept"} & {*Endpoint}


def test_lua_tells_the_modes_apart_by_the_beginnings_of_keys() -> None:
    [table] = re.findall(r"local MODES = \{([^}]*)\}", FRONT)
    assert dict(re.findall(r'\["([^"]*)"\] = "(\w+)"', table)) == {
        prefix: str(mode) for mode, prefix in PREFIX_BY_MODE.items()
    }
    [(length, prefix_length)] = re.findall(r"local KEY_LENGTH, KEY_PREFIX_LENGTH = (\d+), (\d+)", FRONT)
    for prefix in PREFIX_BY_MODE.values():
        assert len(prefix) == int(prefix_length)
        assert len(new_key(prefix, bytes).get_secret_value()) == int(length)


def test_lua_asks_for_the_test_route_of_an_endpoint_by_its_name() -> None:
    assert 'is_test and "test:" .. known.endpoint' in FRONT
    [route] = [
        json.dumps(r) for name, r in resources(CATALOG, settings()) if name == ROUTE_TYPE and r["name"] == ROUTE_CONFIG
    ]
    assert set(re.findall(r'"(test:\w+)": ', route)) == {
        *map(simulator_route_key, SOLD),
        simulator_kept_route_key(),
    }


def test_lua_goes_to_what_is_kept_by_the_routes_there_are_and_tells_the_sink_where_it_listens() -> None:
    lua = code((ROOT / "envoy" / "lua" / "kept.lua").read_text(encoding="utf-8"))
    assert f'"{simulator_kept_route_key()}" or "{kept_route_key("")}" .. grant.provider' in lua
    assert 'request.endpoint .. "@" .. grant.provider .. ":" .. request.model' in lua
    assert lua.count(f'[":path"] = "{KEEP_PATH}"') == 1
    assert f'{{"v":{SPOOL_VERSION},' in lua
    written = set(re.findall(r'[{,]"(\w+)":', lua)) - {"id"}
    assert written == {
        *(SpoolField.VERSION, SpoolField.TYPE, SpoolField.START_TIME, SpoolField.STATUS, SpoolField.CLUSTER),
        *(SpoolField.REQUEST, SpoolField.GRANT, SpoolField.KEPT),
    }
    [forgets] = re.findall(r"local FORGETS = \{([^}]*)\}", lua)
    assert set(re.findall(r"(\w+) = true", forgets)) == {name for name in Endpoint if FACTS[name].forgets}
    [folders] = re.findall(r"local KEPT_IN = \{([^}]*)\}", FRONT)
    assert {kind: folder for folder, kind in re.findall(r'(\w+) = "(\w+)"', folders)} == {
        str(facts.names): facts.path.split("/")[2] for facts in FACTS.values() if facts.names and "{id}" in facts.path
    }
    [ours] = re.findall(r"local OURS = \{([^}]*)\}", lua)
    assert dict(re.findall(r'(\w+) = "([^"]+)"', ours)) == {
        str(name): route_key(Endpoint.MODELS, "") if name is Endpoint.FILES else BATCHES_ROUTE_KEY
        for name, facts in FACTS.items()
        if facts.is_answered_here and name not in {Endpoint.MODELS, Endpoint.MODEL}
    }


def test_lua_reads_the_same_ids_as_whoever_knows_their_owners() -> None:
    [pattern] = re.findall(r'match\(id, "([^"]+)"\)', FRONT)
    [longest] = re.findall(r"local ID_LENGTH_MAX = (\d+)", FRONT)
    assert pattern == "^%w[%w_-]*$"
    for text in ("a" * int(longest), "file-A_1", "resp_1"):
        assert checked_id(text) == text
    for text in ("a" * (int(longest) + 1), "", "-a", "_a", "a/b", "a.b", "a b", "\u00e4", "a\n"):
        with pytest.raises(InvalidKeptNameError):
            checked_id(text)


def test_lua_asks_what_a_request_costs_with_fields_of_a_spool_line_and_waits_as_long_as_the_cluster() -> None:
    lua = code((ROOT / "envoy" / "lua" / "cost.lua").read_text(encoding="utf-8"))
    written = re.findall(r'[{,]"(\w+)":', lua)
    assert len(written) == len(set(written))
    assert set(written) == {
        *(SpoolField.VERSION, SpoolField.TYPE, SpoolField.START_TIME, SpoolField.STATUS, SpoolField.CLUSTER),
        *(SpoolField.REQUEST, SpoolField.GRANT, SpoolField.USAGE_FIRST, SpoolField.SERVICE_TIER),
    }
    assert f'"{SpoolField.VERSION}":{SPOOL_VERSION},' in lua
    assert re.findall(r"local TIMEOUT_MS = (\d+)", lua) == [str(COST_TIMEOUT_MS)]
    assert f'h:httpCall("{Cluster.BILLING_SINK}"' in lua
    assert f'[":path"] = "{COST_PATH}"' in lua
    assert f'replace("{Header.COST}", amount)' in lua


def test_what_is_kept_is_written_down_by_a_cluster_with_bounds_of_its_own_and_waited_for_as_long_as_that() -> None:
    lua = code((ROOT / "envoy" / "lua" / "kept.lua").read_text(encoding="utf-8"))
    assert set(re.findall(r'h:httpCall\("(\w+)"', lua)) == {Cluster.BILLING_SINK_KEPT}
    assert f"TIMEOUT_MS = 2, {KEPT_TIMEOUT_MS}" in lua
    clusters = {
        str(resource["name"]): resource for name, resource in resources(CATALOG, settings()) if name == CLUSTER_TYPE
    }
    told, bounds = (
        [clusters[name][field] for name in (Cluster.BILLING_SINK, Cluster.BILLING_SINK_KEPT)]
        for field in ("load_assignment", "circuit_breakers")
    )
    assert json.dumps(told[0]).replace(f'"{Cluster.BILLING_SINK}"', f'"{Cluster.BILLING_SINK_KEPT}"') == json.dumps(
        told[1]
    )
    assert bounds[0] != bounds[1]


@pytest.mark.parametrize("folder", ["envoy", "proto"])
def test_a_folder_that_holds_data_is_not_a_package(folder: str) -> None:
    # The package that carries the Envoy binary is imported as `envoy`; ours would hide it.
    found: list[Path] = list((ROOT / folder).rglob("*.py"))
    assert found == []
