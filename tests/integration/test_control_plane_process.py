"""The control plane as a process that is told by its settings where people log in and who carries its mails."""

import json
from base64 import urlsafe_b64encode
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import aiohttp

from gateway_core.clock import utc_now
from gateway_core.contract import Peer
from local_stack.ports import free_port
from tests.support.api import PASSWORD
from tests.support.mail_server import mail_server
from tests.support.oidc_issuer import CLIENT_ID, CLIENT_SECRET, oidc_issuer
from tests.support.planes import Certificates
from tests.support.processes import running_python


async def test_its_settings_name_the_issuer_and_the_mail_server(database: str, tmp_path: Path) -> None:
    port, metrics_port, xds = free_port(), free_port(), free_port()
    url, private = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics_port}"
    api = f"{url}/api/v1/auth"
    async with oidc_issuer(utc_now) as issuer, mail_server() as mails:
        issuer.redirect_uris.add(f"{api}/oidc/callback/corp")
        known = {"name": "corp", "issuer": issuer.url, "client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
        environment = {
            "TOLLGATE_POSTGRES_DSN": database,
            "TOLLGATE_API_KEY_PEPPER": "pepper",
            "TOLLGATE_CREDENTIAL_KEY": urlsafe_b64encode(bytes(32)).decode(),
            "TOLLGATE_CONTROL_PLANE_PORT": str(port),
            "TOLLGATE_CONTROL_PLANE_METRICS_PORT": str(metrics_port),
            "TOLLGATE_XDS_PORT": str(xds),
            **Certificates.issued(tmp_path).environment("XDS", Peer.CONTROL_PLANE),
            "TOLLGATE_OIDC_ISSUERS": json.dumps([{**known, "sign_up": True}]),
            "TOLLGATE_OIDC_LOOPBACK_HTTP": "true",
            "TOLLGATE_SMTP_HOST": "127.0.0.1",
            "TOLLGATE_SMTP_PORT": str(mails.port),
            "TOLLGATE_SMTP_TLS": "none",
            "TOLLGATE_MAIL_FROM": "gateway@example.com",
        }
        async with running_python("control_plane", ready=f"{private}/readyz", **environment) as process:
            async with aiohttp.ClientSession(raise_for_status=True) as browser:
                async with browser.post(f"{api}/oidc/log-ins", json={"issuer": "corp"}) as response:
                    begun = await response.json()
                async with browser.get(begun["authorization_url"]) as response:
                    # Followed to the end, fragment included.
                    assert str(response.real_url).startswith(f"{url}/sign-in")
                    answer = dict(parse_qsl(urlsplit(str(response.real_url)).fragment))
                body = {"log_in_secret": begun["log_in_secret"], **answer}
                async with browser.post(f"{api}/oidc/tokens", json=body) as response:
                    assert (await response.json())["token_type"] == "Bearer"

                new = {"email": "bob@example.com", "password": PASSWORD, "organization": "Engines"}
                async with browser.post(f"{api}/register", json=new) as response:
                    assert response.status == 201
                async with browser.get(f"{private}/metrics") as response:
                    assert "tollgate_control_plane_mails_total" in await response.text()
            # What is in the outbox when it is asked to stop still leaves.
            process.terminate()
            assert await process.wait() == 0
        [mail] = mails.mails
        assert mail["To"] == "bob@example.com"
        assert f"{url}/verify-email#token=" in mail.get_payload()
