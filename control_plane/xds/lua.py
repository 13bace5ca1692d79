"""The Lua scripts of `envoy/lua/`, which travel inline: one version of the configuration pins the script as well."""

import re
from functools import cache
from pathlib import Path
from typing import Final

from control_plane.xds.protobuf import JsonObject, typed_struct

_FOLDER: Final = Path(__file__).parents[2] / "envoy" / "lua"

FRONT_FILTER: Final = "tollgate.front"
"""Name of the front filter; route metadata for it stands under the same name."""


BEHIND_ADMISSION: Final = "leases"
"""The same of the front filter where it stands a second time, for leases and whatever else hangs on the answer of ext_authz: what a provider keeps, own keys,
sessions. Routes have metadata under this name, and a listener never comes at the same moment as its routes: so it stays."""


def upstream_filter(cluster: str) -> str:
    """Name of the upstream filter of a cluster; route metadata for it stands under the same name."""
    return f"tollgate.upstream.{cluster}"


_REQUIRED: Final = re.compile(r'require\("(?!ffi")(\w+)"\)')
"""`ffi` is LuaJIT's own."""


@cache
def script(name: str) -> str:
    """The text of `envoy/lua/<name>.lua`, and in front of it that of every module it requires: Envoy is sent one text."""
    return "\n".join([*(_preloaded(module) for module in _modules(name)), _text(name)])


def _modules(name: str) -> dict[str, None]:
    found = dict.fromkeys(_REQUIRED.findall(_text(name)))
    return {each: None for module in found for each in (*_modules(module), module)}


def _preloaded(module: str) -> str:
    return f'package.preload["{module}"] = function()\n{_text(module)}end\n'


def _text(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")


def lua_config(name: str) -> JsonObject:
    """The `typed_config` of a Lua filter. All filters that run one script share a VM per worker."""
    return typed_struct(
        "envoy.extensions.filters.http.lua.v3.Lua",
        default_source_code={"inline_string": script(name)},
        shared_vm_id=f"tollgate.{name}",
    )
