"""How far a change of a key has got among the processes that keep keys in memory, in Postgres."""

from datetime import datetime, timedelta
from typing import Final

from pydantic import Field

from control_plane.database import Database
from control_plane.resource import Resource

KEPT: Final = timedelta(hours=1)
"""How long it is known when a process took up what."""


class Authorizer(Resource):
    """A running process of ext_authz, and whether it has taken up a key's latest change."""

    id: str
    started_at: datetime
    taken_up: bool
    took_ms: int | None = Field(
        description="How long that took; null before it has, for a change before its start, and after an hour."
    )


class Propagation(Resource):
    """How far the latest change of a key has got."""

    key_id: str
    change_number: int = Field(description="Changes of all keys are numbered together.")
    changed_at: datetime
    propagated: bool = Field(description="Whether every running process has taken it up.")
    authorizers: list[Authorizer]


async def find_propagation(db: Database, org_id: str, key_id: str) -> Propagation | None:
    """How far the latest change of a key, of its project or of its organisation, has got; None if there was never such a key."""
    # One statement, so that the change and what is known of it are of one moment.
    rows = await db.fetch(
        """
        SELECT latest.number AS change_number, latest.at AS changed_at, a.instance_id AS id, a.started_at,
               a.change_number >= latest.number AS taken_up,
               (SELECT extract(epoch FROM min(u.taken_up_at) - latest.at) * 1000 FROM accounts.key_uptakes u
                WHERE u.instance_id = a.instance_id AND u.change_number >= latest.number
                  AND latest.at > greatest(a.started_at, now() - $3::interval))::bigint AS took_ms
        FROM (
            SELECT change.number, change.at
            FROM accounts.api_keys k
            JOIN accounts.organizations o USING (org_id) JOIN accounts.projects p USING (project_id)
            CROSS JOIN LATERAL (
                VALUES (k.change_number, k.changed_at), (o.keys_change_number, o.keys_changed_at),
                       (p.keys_change_number, p.keys_changed_at)
            ) AS change (number, at)
            WHERE k.org_id = $1 AND k.key_id = $2 ORDER BY change.number DESC LIMIT 1
        ) AS latest LEFT JOIN accounts.live_authorizers a ON true
        ORDER BY a.started_at, a.instance_id
        """,
        org_id,
        key_id,
        KEPT,
    )
    if not rows:
        return None
    authorizers = [Authorizer.model_validate({**row}) for row in rows if row["id"] is not None]
    return Propagation(
        key_id=key_id,
        change_number=rows[0]["change_number"],
        changed_at=rows[0]["changed_at"],
        propagated=all(each.taken_up for each in authorizers),
        authorizers=authorizers,
    )


async def forget_old_uptakes(db: Database) -> None:
    """Remove what nobody can ask for any more: uptakes that are too old, and processes that were killed."""
    await db.execute("DELETE FROM accounts.key_uptakes WHERE taken_up_at < now() - $1::interval", KEPT)
    await db.execute("DELETE FROM accounts.authorizers WHERE heard_at < now() - $1::interval", KEPT)
