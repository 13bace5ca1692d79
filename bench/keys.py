"""API keys by the hundred thousand, as they would lie in Postgres."""

import secrets
from collections.abc import Sequence
from typing import Final

from pydantic import SecretStr

from gateway_core.api_keys import LIVE_PREFIX, hash_key, new_key
from gateway_core.money import parse_usd
from tests.support.stack import Stack

KEYS_PER_ORG: Final = 10_000
"""As many as an organisation may have."""


async def add_keys(stack: Stack, name: str, count: int) -> Sequence[str]:
    """So many keys of organisations called after `name`, each of which has plenty.

    Nobody is told of them, which is of no use either: nobody has asked for them yet.
    """
    keys = [new_key(LIVE_PREFIX, secrets.token_bytes).get_secret_value() for _ in range(count)]
    pepper = SecretStr(stack.secret("tollgate_api_key_pepper"))
    async with stack.database() as connection, connection.transaction():
        await connection.execute("ALTER TABLE accounts.api_keys DISABLE TRIGGER USER")
        for first in range(0, count, KEYS_PER_ORG):
            org_id, project_id = f"org_{name}_{first}", f"prj_{name}_{first}"
            await connection.execute("INSERT INTO accounts.organizations (org_id, name) VALUES ($1, $1)", org_id)
            await connection.execute("INSERT INTO accounts.projects VALUES ($1, $2, 'Default')", project_id, org_id)
            await connection.execute("SELECT billing.open_balance($1)", org_id)
            await connection.execute("SELECT billing.credit($1, $2, 'bench')", org_id, parse_usd("1000000"))
            await connection.copy_records_to_table(
                "api_keys",
                schema_name="accounts",
                columns=["key_id", "org_id", "project_id", "name", "key_hash", "mode"],
                records=[
                    (f"key_{name}_{number}", org_id, project_id, f"{number}", hash_key(keys[number], pepper), "live")
                    for number in range(first, min(count, first + KEYS_PER_ORG))
                ],
            )
        await connection.execute("ALTER TABLE accounts.api_keys ENABLE TRIGGER USER")
    return keys
