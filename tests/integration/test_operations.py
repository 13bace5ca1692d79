"""Whether a change is in force: what Envoys of all control planes say, and what follows from it, on a real Postgres."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import asyncpg
import pytest

from control_plane.xds.nodes import NodeStatus
from control_plane.xds.postgres_nodes import PostgresNodes
from tests.support.api import Api, Reply, running_api
from tests.support.catalog_api import MODEL, PROVIDER, put, serve

NODE = NodeStatus(1, "envoy-1", datetime(2026, 1, 1, tzinfo=UTC))
NEVER = 2**62


@pytest.fixture
async def api(pool: asyncpg.Pool) -> AsyncIterator[Api]:
    async with running_api(pool) as running:
        yield running.as_(await running.operator_token())


@dataclass(frozen=True)
class ControlPlane:
    """One control plane, as the others see it."""

    pool: asyncpg.Pool
    name: str = "cp_1"

    async def says(self, *nodes: NodeStatus, published: int = NEVER, untranslatable: int | None = None) -> None:
        await PostgresNodes(self.pool, self.name).report(nodes, published=published, untranslatable=untranslatable)

    async def newest(self) -> int:
        revision: int = await self.pool.fetchval("SELECT max(revision) FROM catalog.revisions")
        return revision


@pytest.fixture
def control_plane(pool: asyncpg.Pool) -> ControlPlane:
    return ControlPlane(pool)


def at(accepted: int, refused: int | None = None, node: NodeStatus = NODE) -> NodeStatus:
    return replace(
        node, accepted_revision=accepted, refused_revision=refused, refusal=None if refused is None else "no such thing"
    )


async def now(api: Api, operation: Reply) -> Reply:
    return await api.get(f"/operations/{operation['id']}")


async def test_a_change_is_applied_once_every_connected_envoy_has_accepted_it(
    api: Api, control_plane: ControlPlane
) -> None:
    other = ControlPlane(api.pool, "cp_2")
    made = await put(api, "/providers/one", PROVIDER)
    revision = made["revision"]
    await other.says(at(revision - 1))
    await control_plane.says(at(revision))
    assert (await now(api, made))["state"] == "pending"
    await other.says(at(revision), at(revision, node=replace(NODE, stream=2, node_id="envoy-2")))
    done = await now(api, made)
    assert (done["state"], done["nodes"], done["error"]) == ("applied", 3, None)
    assert [node["control_plane"] for node in (await api.get("/nodes"))["data"]] == ["cp_1", "cp_2", "cp_2"]


@dataclass(frozen=True)
class Authorizer:
    """A process of ext_authz, as its reports show it."""

    pool: asyncpg.Pool
    instance_id: str = "authz_1"

    async def serves(self, revision: int) -> None:
        await self.pool.execute("SELECT accounts.report_authorizer($1, 0, '0 s', $2)", self.instance_id, revision)

    async def falls_silent(self, seconds: int) -> None:
        await self.pool.execute(
            "UPDATE accounts.authorizers SET heard_at = now() - $2 * interval '1 s' WHERE instance_id = $1",
            self.instance_id,
            seconds,
        )


async def test_a_change_is_applied_once_every_authorizer_serves_it(api: Api, control_plane: ControlPlane) -> None:
    one, two = Authorizer(api.pool), Authorizer(api.pool, "authz_2")
    made = await put(api, "/providers/one", PROVIDER)
    revision = made["revision"]
    assert made["waiting_for"] == []
    await one.serves(revision)
    await two.serves(revision - 1)
    await control_plane.says(at(revision))
    waiting = await now(api, made)
    assert (waiting["state"], waiting["waiting_for"]) == ("pending", ["authz_2"])
    assert [(each["id"], each["lags"]) for each in (await api.get("/nodes"))["authorizers"]] == [
        ("authz_1", False),
        ("authz_2", True),
    ]
    await two.serves(revision)
    await control_plane.says(at(revision))
    done = await now(api, made)
    assert (done["state"], done["nodes"], done["authorizers"], done["waiting_for"]) == ("applied", 1, 2, [])


async def test_a_silent_envoy_is_shown_and_neither_waited_for_nor_believed(
    api: Api, control_plane: ControlPlane
) -> None:
    made = await put(api, "/providers/one", PROVIDER)
    revision = made["revision"]
    silent = replace(NODE, stream=2, node_id="envoy-2", is_silent=True)
    await control_plane.says(at(revision - 1), at(revision - 1, refused=revision, node=silent))
    assert (await now(api, made))["waiting_for"] == ["envoy-1"]
    assert [node["silent"] for node in (await api.get("/nodes"))["data"]] == [False, True]
    await control_plane.says(at(revision), at(revision - 1, refused=revision, node=silent))
    done = await now(api, made)
    assert (done["state"], done["nodes"]) == ("applied", 1)

    # It counts again once it answers.
    next_ = await put(api, "/providers/one", PROVIDER | {"requests_max": 2}, etag="*")
    back = replace(silent, is_silent=False)
    await control_plane.says(at(next_["revision"]), at(revision, node=back))
    assert (await now(api, next_))["waiting_for"] == ["envoy-2"]


async def test_what_a_change_waits_for_is_told_by_id_whatever_it_is(api: Api, control_plane: ControlPlane) -> None:
    made = await put(api, "/providers/one", PROVIDER)
    await Authorizer(api.pool).serves(0)
    await control_plane.says(at(0))
    assert (await now(api, made))["waiting_for"] == ["envoy-1", "authz_1"]
    [listed, *_] = (await api.get("/operations"))["data"]
    assert listed["waiting_for"] == ["envoy-1", "authz_1"]


async def test_an_authorizer_that_is_gone_is_waited_for_no_longer_than_it_counts(
    api: Api, control_plane: ControlPlane
) -> None:
    gone = Authorizer(api.pool)
    made = await put(api, "/providers/one", PROVIDER)
    await gone.serves(0)
    await gone.falls_silent(4)
    await control_plane.says(at(made["revision"]))
    assert (await now(api, made))["state"] == "pending"
    await gone.falls_silent(6)
    # Without one that is there, nobody admits a request, and who starts reads the newest before it does.
    await control_plane.says(at(made["revision"]))
    done = await now(api, made)
    assert (done["state"], done["authorizers"]) == ("applied", 0)
    assert (await api.get("/nodes"))["authorizers"] == []


async def test_an_authorizer_that_does_not_say_what_it_serves_is_not_waited_for(
    api: Api, control_plane: ControlPlane
) -> None:
    made = await put(api, "/providers/one", PROVIDER)
    await api.pool.execute("SELECT accounts.report_authorizer('authz_old', 0, '0 s')")
    await control_plane.says(at(made["revision"]))
    done = await now(api, made)
    assert (done["state"], done["authorizers"]) == ("applied", 0)


async def test_without_an_envoy_a_change_is_applied_to_none_once_it_is_published(
    api: Api, control_plane: ControlPlane
) -> None:
    made = await put(api, "/providers/one", PROVIDER)
    await control_plane.says(published=made["revision"] - 1)
    assert (await now(api, made))["state"] == "pending"
    await control_plane.says(published=made["revision"])
    assert ((await now(api, made))["state"], (await now(api, made))["nodes"]) == ("applied", 0)


async def test_an_envoy_that_leaves_is_not_waited_for(api: Api, control_plane: ControlPlane) -> None:
    made = await put(api, "/providers/one", PROVIDER)
    await control_plane.says(at(0))
    assert (await now(api, made))["state"] == "pending"
    await control_plane.says()
    assert (await now(api, made))["state"] == "applied"


async def test_a_control_plane_that_is_gone_takes_its_envoys_with_it(api: Api, control_plane: ControlPlane) -> None:
    made = await put(api, "/providers/one", PROVIDER)
    await ControlPlane(api.pool, "cp_gone").says(at(0))
    await control_plane.says(at(made["revision"]))
    assert (await now(api, made))["state"] == "pending"
    await api.pool.execute(
        "UPDATE catalog.envoy_nodes SET seen_at = now() - interval '11 s' WHERE control_plane = 'cp_gone'"
    )
    await control_plane.says(at(made["revision"]))
    assert ((await now(api, made))["state"], (await now(api, made))["nodes"]) == ("applied", 1)


async def test_a_change_that_envoy_refuses_is_undone_and_the_operation_says_why(
    api: Api, control_plane: ControlPlane
) -> None:
    good = await put(api, "/providers/one", PROVIDER | {"credential": "sk-x", "headers": {"a": "b"}, "requests_max": 7})
    await control_plane.says(at(good["revision"]))
    before = await api.pool.fetchrow("SELECT * FROM catalog.providers")
    assert before is not None
    bad = await put(api, "/providers/one", PROVIDER | {"credential": None, "headers": {}}, etag="*")
    await control_plane.says(at(good["revision"], refused=bad["revision"]))
    undone = await now(api, bad)
    assert (undone["state"], undone["error"]) == ("rolled_back", "envoy-1 refused it: no such thing")
    after = await api.pool.fetchrow("SELECT * FROM catalog.providers")
    assert after is not None
    assert after["revision"] == undone["undone_by"] > bad["revision"]
    assert {**after, "revision": 0} == {**before, "revision": 0}
    assert (await now(api, good))["state"] == "applied"


async def test_what_was_created_is_gone_after_an_undo_and_what_was_removed_is_back(
    api: Api, control_plane: ControlPlane
) -> None:
    await serve(api, "m")
    await put(api, "/models/m", MODEL | {"aliases": ["n", "o"]}, etag="*")
    good = await control_plane.newest()
    await control_plane.says(at(good))
    routes = (await api.get("/routes/m")).document
    removed = await api.call("DELETE", "/routes/m", headers={"If-Match": "*"})
    await control_plane.says(at(good, refused=removed["revision"]))
    undone = await now(api, removed)
    assert (undone["state"], undone["error"]) == ("rolled_back", "envoy-1 refused it: no such thing")
    assert (await api.get("/routes/m")).document | {"revision": 0} == routes | {"revision": 0}
    good = await control_plane.newest()
    await control_plane.says(at(good))
    made = await put(api, "/models/x", MODEL | {"aliases": ["y"]})
    await control_plane.says(at(good, refused=made["revision"]))
    assert (await api.get("/models/x")).status == 404
    assert await api.pool.fetchval("SELECT count(*) FROM catalog.model_aliases") == 2


async def test_several_refused_together_are_undone_from_the_newest_on_until_envoy_accepts(
    api: Api, control_plane: ControlPlane
) -> None:
    first = await put(api, "/providers/one", PROVIDER)
    second = await put(api, "/providers/one", PROVIDER | {"requests_max": 2}, etag="*")
    third = await put(api, "/providers/one", PROVIDER | {"requests_max": 3}, etag="*")
    await control_plane.says(at(0, refused=third["revision"]))
    assert [(await now(api, each))["state"] for each in (first, second, third)] == ["pending", "pending", "rolled_back"]
    # The refusal is of a snapshot that is history now: nothing follows until Envoy has answered about the newest.
    await control_plane.says(at(0, refused=third["revision"]))
    assert (await now(api, second))["state"] == "pending"
    await control_plane.says(at(0, refused=await control_plane.newest()))
    assert (await now(api, second))["state"] == "rolled_back"
    await control_plane.says(at(await control_plane.newest()))
    assert (await now(api, first))["state"] == "applied"
    assert (await api.get("/providers/one"))["requests_max"] is None


async def test_what_others_changed_since_is_not_undone_and_a_person_is_told(
    api: Api, control_plane: ControlPlane
) -> None:
    made = await put(api, "/providers/one", PROVIDER)
    await api.pool.execute("UPDATE catalog.providers SET requests_max = 1")
    await control_plane.says(at(0, refused=await control_plane.newest()))
    told = await now(api, made)
    assert (told["state"], told["undone_by"]) == ("rejected", None)
    assert "providers one has been changed since" in told["error"]
    assert (await api.get("/providers/one"))["requests_max"] == 1


async def test_terms_and_newer_prices_are_not_undone_for_what_another_change_did(
    api: Api, control_plane: ControlPlane
) -> None:
    await serve(api, "m")
    tenant = await api.as_(None).sign_up("tenant@example.com")
    good = await control_plane.newest()
    await control_plane.says(at(good))
    bad = await put(api, "/providers/one", PROVIDER | {"requests_max": 7}, etag="*")
    terms = await put(api, f"{tenant.org}/terms", {"markup_percent": "10"})
    price = await api.post("/prices", {"model": "m", "provider": "one", "free": True})
    await control_plane.says(at(good, refused=price["revision"]))
    states = [(await now(api, each))["state"] for each in (bad, terms, price)]
    assert states == ["rolled_back", "pending", "pending"]
    await control_plane.says(at(await control_plane.newest()))
    assert [(await now(api, each))["state"] for each in (terms, price)] == ["applied", "applied"]
    assert (await api.get(f"{tenant.org}/terms"))["markup_percent"] == "10"


async def test_the_first_price_of_a_deployment_can_be_refused_and_stays(api: Api, control_plane: ControlPlane) -> None:
    await serve(api, "m")
    await put(api, "/models/n", MODEL)
    await put(api, "/deployments/n/one", {"upstream_model": "up"})
    good = await control_plane.newest()
    await control_plane.says(at(good))
    price = await api.post("/prices", {"model": "n", "provider": "one", "free": True})
    await control_plane.says(at(good, refused=price["revision"]))
    told = await now(api, price)
    assert (told["state"], told["undone_by"]) == ("rejected", None)
    assert "a price is never removed" in told["error"]


async def test_a_revision_no_configuration_can_be_made_of_is_undone(api: Api, control_plane: ControlPlane) -> None:
    made = await put(api, "/providers/one", PROVIDER)
    await control_plane.says(published=made["revision"] - 1, untranslatable=made["revision"])
    assert (await now(api, made))["state"] == "rolled_back"
    assert (await api.get("/providers/one")).status == 404


async def test_waiting_for_a_change_ends_with_it(api: Api, control_plane: ControlPlane) -> None:
    made = await put(api, "/providers/one", PROVIDER)
    assert (await api.get(f"/operations/{made['id']}?wait_ms=50"))["state"] == "pending"
    await control_plane.says(at(made["revision"]))
    assert (await api.get(f"/operations/{made['id']}?wait_ms=20000"))["state"] == "applied"


async def test_what_is_settled_needs_no_memory_of_what_it_changed(api: Api, control_plane: ControlPlane) -> None:
    made = await put(api, "/providers/one", PROVIDER)
    assert await api.pool.fetchval("SELECT count(*) FROM catalog.changes") == 1
    await control_plane.says(at(made["revision"]))
    await control_plane.says(at(made["revision"]))
    assert await api.pool.fetchval("SELECT count(*) FROM catalog.changes") == 0
