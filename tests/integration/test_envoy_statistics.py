"""What is asked of Envoy's statistics is what an Envoy tells that has our listeners and clusters."""

import re
from pathlib import Path

import aiohttp
import yaml

from control_plane.xds.static_bootstrap import static_bootstrap
from control_plane.xds.translate import resources
from local_stack.envoy import BOOTSTRAP, running_envoy
from local_stack.ports import free_port
from tests.support.catalogs import catalog, deployment, provider, settings
from tests.support.envoy_statistics import OF_ENVOY
from tests.support.planes import Certificates


async def test_an_envoy_with_our_listeners_tells_what_alerts_and_dashboards_ask_for(tmp_path: Path) -> None:
    Certificates.issued(tmp_path)
    told = settings(spool_dir=str(tmp_path)).model_copy(
        update={"gateway_host": "127.0.0.1", "gateway_port": free_port(), "keepers_port": free_port()}
    )
    sold = catalog([provider("openai", credential="secret")], [deployment("small", "openai")])
    base = yaml.safe_load(BOOTSTRAP.read_text(encoding="utf-8").replace("/run/secrets/", f"{tmp_path}/"))
    bootstrap = static_bootstrap(resources(sold, told), base)
    async with (
        running_envoy(tmp_path / "envoy", bootstrap) as admin_url,
        aiohttp.ClientSession() as session,
        session.get(f"{admin_url}/stats/prometheus") as answer,
    ):
        text = await answer.text()
    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(envoy_\w+)\{([^}]*)\} ", text, re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    assert {name: found.get(name) for name in OF_ENVOY} == dict(OF_ENVOY)
    assert 'envoy_http_lua_errors{envoy_http_conn_manager_prefix="gateway"} 0\n' in text
