"""The API under fire from its own OpenAPI document: whatever is sent, there is an answer, none says that we failed, and what is refused changes nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any

import asyncpg
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.core.result import Ok

from tests.support.api import Account, Api, Clock
from tests.support.oidc_issuer import ISSUER_NAME, oidc_issuer, settings_for
from tests.support.stripe import running_stripe

EXAMPLES_PER_OPERATION = 25
ANSWER_WITHIN_S = 5
SCHEMAS = ("accounts", "catalog", "payments", "billing")


class Tables:
    """What stands in all tables, and whether that is still so; asked from the thread of the attack."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._loop = asyncio.get_running_loop()
        self._digests: Mapping[str, str] = {}
        self._next_transaction: int | None = None

    def changed(self) -> set[str]:
        """The tables in which something else stands than when this was last asked."""
        return asyncio.run_coroutine_threadsafe(self._changed(), self._loop).result()

    async def _changed(self) -> set[str]:
        # Nobody writes without a number of a transaction, and where none was given there is no need to read.
        number = await self._pool.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
        if number == self._next_transaction:
            return set()
        before, self._next_transaction = self._digests, number
        tables = await self._pool.fetch(
            "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname = ANY($1)", SCHEMAS
        )
        each = (
            f"SELECT '{table['name']}' AS name, count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0) AS digest "
            f"FROM {table['name']} t"
            for table in tables
        )
        rows = await self._pool.fetch(" UNION ALL ".join(each))
        self._digests = {row["name"]: row["digest"] for row in rows}
        return {name for name, digest in self._digests.items() if before.get(name) != digest}


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    clock = Clock()
    async with (
        oidc_issuer(clock.now) as issuer,
        running_stripe(pool, clock, issuers=[settings_for(issuer)]) as stripe,
    ):
        yield stripe.api


def fuzz(url: str, token: str, org_id: str, tables: Tables) -> dict[int, int]:
    """Call every operation with what its schema admits and with what it does not; returns how often which status came."""
    schema = schemathesis.openapi.from_url(f"{url}/api/v1/openapi.json")
    seen: dict[int, int] = {}
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):
            strategy = operation.as_strategy(generation_mode=mode)

            @settings(
                max_examples=EXAMPLES_PER_OPERATION,
                database=None,
                derandomize=True,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=strategy)
            def attack(case: Any) -> None:
                if "org_id" in case.path_parameters:
                    case.path_parameters["org_id"] = org_id
                if "issuer" in case.path_parameters:
                    case.path_parameters["issuer"] = ISSUER_NAME
                if isinstance(case.body, dict) and isinstance(case.body.get("issuer"), str):
                    case.body["issuer"] = ISSUER_NAME
                # The session and its user have to outlive the attack.
                if case.operation.path.endswith(("/logout", "/membership")):
                    case.query = {"dry_run": "true"}
                tables.changed()  # whatever the call before it has done
                response = case.call(headers={"Authorization": f"Bearer {token}"}, timeout=ANSWER_WITHIN_S)
                seen[response.status_code] = seen.get(response.status_code, 0) + 1
                assert response.status_code < 500, (case.as_curl_command(), response.text)
                if response.status_code >= 400:
                    assert response.headers["content-type"][0].startswith("application/problem+json"), response.text
                    assert tables.changed() == set(), (case.as_curl_command(), response.text)

            # What takes nothing has nothing to get wrong.
            with contextlib.suppress(Unsatisfiable):
                attack()
    return seen


@pytest.mark.timeout(400)  # fifty calls of every operation, on a machine that may be busy
async def test_nothing_that_is_sent_makes_it_fail_or_hang(api: Api) -> None:
    user: Account = await api.sign_up("owner@example.com")
    await api.pool.execute("UPDATE accounts.users SET is_operator = true WHERE user_id = $1", user.user_id)
    assert user.api.token is not None
    seen = await asyncio.to_thread(fuzz, api.url, user.api.token, user.org_id, Tables(api.pool))
    # An attack that is mostly turned away at the door proves little.
    assert seen.get(401, 0) + seen.get(429, 0) < sum(seen.values()) / 4, seen
    assert seen[200]
    assert seen[201]
    assert seen[422]
    assert (await user.api.get(user.org)).status == 200
