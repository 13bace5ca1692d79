"""Machine tokens from before they ended with their makers, and what the migration makes of them."""

import asyncpg

from gateway_core.migrate import migrate, read_functions, read_migrations
from tests.support.databases import MIGRATIONS, fresh_database

BEFORE = 18

ROWS = """
INSERT INTO accounts.organizations (org_id, name) VALUES ('org_1', 'x'), ('org_2', 'x');
INSERT INTO accounts.users (user_id, email, password_hash, is_operator) VALUES
    ('usr_in', 'in', 'x', false), ('usr_out', 'out', 'x', false), ('usr_op', 'op', 'x', true);
INSERT INTO accounts.memberships (org_id, user_id, role) VALUES ('org_1', 'usr_in', 'owner'), ('org_2', 'usr_out', 'owner');
INSERT INTO accounts.machine_tokens (token_id, name, token_hash, role, org_id, scopes, created_by, expires_at, disabled_at)
SELECT id, id, sha256(id::bytea), CASE WHEN org_id IS NULL THEN 'platform_operator' ELSE 'organization' END, org_id,
       '{keys:read}', maker, ends, CASE WHEN is_over THEN now() END
FROM (VALUES
    ('seeded', NULL, NULL, NULL::timestamptz, false),
    ('platform', NULL, 'usr_op', NULL, false),
    ('by_operator', 'org_1', 'usr_op', NULL, false),
    ('by_member', 'org_1', 'usr_in', '2090-01-01Z', false),
    ('child', 'org_1', 'by_member', NULL, false),
    ('grandchild', 'org_1', 'child', '2091-01-01Z', false),
    ('earlier', 'org_1', 'child', '2080-01-01Z', false),
    ('by_former_member', 'org_1', 'usr_out', NULL, false),
    ('its_child', 'org_1', 'by_former_member', NULL, false),
    ('elsewhere', 'org_2', 'usr_out', NULL, false),
    ('revoked', 'org_1', 'usr_in', NULL, true),
    ('orphan', 'org_1', 'revoked', NULL, false)
) AS made (id, org_id, maker, ends, is_over);
"""


async def test_tokens_whose_maker_is_gone_end_and_none_outlives_the_one_it_was_made_with(postgres_dsn: str) -> None:
    async with fresh_database(postgres_dsn, up_to={"control_plane": BEFORE, "billing_sink": 1000}) as dsn:
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(ROWS)
            folder = MIGRATIONS["control_plane"]
            await migrate(connection, "control_plane", read_migrations(folder), read_functions(folder))
            rows = await connection.fetch("SELECT * FROM accounts.machine_tokens")
        finally:
            await connection.close()
    ended = {row["token_id"] for row in rows if row["disabled_at"] is not None}
    assert ended == {"by_former_member", "its_child", "revoked", "orphan"}
    years = {row["token_id"]: row["expires_at"].year for row in rows if row["expires_at"] is not None}
    assert years == {"by_member": 2090, "child": 2090, "grandchild": 2090, "earlier": 2080}
