#!/usr/bin/env python3
"""Makes the secret files that compose.yaml hands to the containers. What exists stays, but for certificates that end soon.

Compose mounts a secret with the owner and mode of the file on the host, and each image runs as a user of its own. So the
files can be read by everybody, and the directory they are in only by its owner: a mounted file does not pass through it.
"""

import base64
import hashlib
import secrets
import sys
from datetime import datetime
from pathlib import Path
from typing import Final

from gateway_core import certificates
from gateway_core.api_keys import LIVE_PREFIX, OPERATOR_PREFIX, new_key
from gateway_core.clock import utc_now
from gateway_core.ids import RandomBytes

DIRECTORY: Final = Path(__file__).parent / "secrets"
DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o644


def make_missing(directory: Path, random_bytes: RandomBytes, now: datetime) -> list[str]:
    """Write the secrets that have no file yet and the certificates that are due, and return their names.

    A URL is made once, from the password at that time: whoever points it at a database of their own keeps it, and whoever
    changes a password deletes the URL.
    """
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(DIRECTORY_MODE)
    made: list[str] = []

    def write(name: str, value: str) -> None:
        unfinished = directory / f".{name}.unfinished"
        unfinished.write_text(value, encoding="utf-8")
        unfinished.chmod(FILE_MODE)
        unfinished.replace(directory / name)
        made.append(name)

    def kept(name: str, value: str) -> str:
        path = directory / name
        if path.exists():
            return path.read_text(encoding="utf-8").strip()
        write(name, value)
        return value

    postgres = kept("postgres_password", random_bytes(32).hex())
    clickhouse = kept("clickhouse_password", random_bytes(32).hex())
    valkey = kept("valkey_password", random_bytes(32).hex())
    kept("grafana_admin_password", random_bytes(16).hex())
    grafana = kept("clickhouse_grafana_password", random_bytes(32).hex())
    # ClickHouse is told the hash; deploy/clickhouse/grafana.xml says what its owner may.
    hashed = hashlib.sha256(grafana.encode()).hexdigest()
    kept(
        "clickhouse_grafana.xml",
        f"<clickhouse><grafana_password_sha256>{hashed}</grafana_password_sha256></clickhouse>\n",
    )
    kept("valkey.conf", f"requirepass {valkey}\n")
    kept("tollgate_postgres_dsn", f"postgresql://tollgate:{postgres}@postgres:5432/tollgate")
    kept("tollgate_clickhouse_url", f"http://tollgate:{clickhouse}@clickhouse:8123/tollgate")
    kept("tollgate_redis_url", f"redis://:{valkey}@valkey:6379/0")
    kept("tollgate_api_key_pepper", random_bytes(32).hex())
    kept("tollgate_credential_key", base64.urlsafe_b64encode(random_bytes(32)).decode())
    kept("tollgate_response_cache_key", base64.urlsafe_b64encode(random_bytes(32)).decode())
    # None yet: who changes the key writes the one before it here.
    kept("tollgate_credential_keys_before", "")
    kept("tollgate_demo_api_key", new_key(LIVE_PREFIX, random_bytes).get_secret_value())
    kept("tollgate_operator_token", new_key(OPERATOR_PREFIX, random_bytes).get_secret_value())
    there = {
        path.name: path.read_text(encoding="utf-8")
        for path in map(directory.joinpath, certificates.FILES)
        if path.exists()
    }
    if not certificates.are_good(there, now):
        for name, content in certificates.issue(now).items():
            write(name, content)
    return made


def main() -> None:
    """Make what is missing and name it; no value is shown."""
    made = make_missing(DIRECTORY, secrets.token_bytes, utc_now())
    sys.stdout.write(f"{DIRECTORY}: {', '.join(made) or 'nothing was missing'}\n")


if __name__ == "__main__":
    main()
