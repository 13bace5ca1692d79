"""`/orgs/{org_id}/keys`: API keys. The key itself is in the answer that made it, and nowhere else."""

from datetime import datetime, timedelta
from typing import Annotated, Final

from pydantic import Field

from control_plane.accounts import postgres_api_keys, postgres_orgs, postgres_propagation
from control_plane.accounts.budgets import PER_DAY, PER_MONTH, limit_nano_usd
from control_plane.accounts.model import CONCURRENCY, REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE, Key
from control_plane.accounts.permissions import Permission
from control_plane.accounts.postgres_api_keys import KeySettings
from control_plane.accounts.postgres_propagation import Propagation
from control_plane.api.listing import page_of
from control_plane.api.operation import Call, found, operation
from control_plane.api.paging import Page, PageQuery
from control_plane.circumstances import Circumstances, judged
from control_plane.errors import ConflictError, InvalidField, InvalidFieldsError, NoTestModeError
from control_plane.fields import SHOWN_ONCE, Body, Count, ModelPattern, Moment, Name, Network, Usd
from gateway_core.api_keys import PREFIX_BY_MODE, KeyHash, hash_key, hint, new_key
from gateway_core.ids import new_id
from gateway_core.mode import Mode

TAG: Final = "keys"


class KeyChange(Body):
    """What can be changed about a key; what is left out stays as it is, null removes a limit."""

    name: Name = ""
    models_allowed: list[ModelPattern] = Field(
        default=[], max_length=100, description="Models it may ask for, * for any characters; none means all."
    )
    ip_allowed: list[Network] = Field(
        default=[], max_length=100, description="Where it may come from; none means anywhere."
    )
    budget_per_day_usd: Usd | None = Field(default=None, description=PER_DAY)
    budget_per_month_usd: Usd | None = Field(default=None, description=PER_MONTH)
    requests_per_minute_max: Count | None = Field(default=None, description=REQUESTS_PER_MINUTE)
    tokens_per_minute_max: Count | None = Field(default=None, description=TOKENS_PER_MINUTE)
    concurrency_max: Count | None = Field(default=None, description=CONCURRENCY)
    disabled: bool = False
    expires_at: Moment | None = None


def _ahead(moment: datetime, circumstances: Circumstances) -> None:
    if moment <= circumstances.now:
        raise ValueError("is past")


class NewKey(KeyChange):
    """A new key. Without a project it belongs to the oldest one."""

    name: Name
    mode: Mode = Field(default=Mode.LIVE, description="`test`: the simulator answers, play money pays. Never changes.")
    project_id: str | None = Field(default=None, max_length=100)
    expires_at: Annotated[Moment, judged(_ahead)] | None = None


class Rotation(Body):
    """How long the old key goes on working beside the new one."""

    overlap_s: int = Field(
        default=24 * 3600,
        ge=0,
        le=30 * 24 * 3600,
        description="For so many seconds the old key still works; 0, where it is known to others, ends it at once.",
    )


class KeyWithSecret(Key):
    """A key, this once with the key itself."""

    key: str = Field(description="Keep it: it is shown only now.", json_schema_extra=SHOWN_ONCE)


@operation("GET", "/orgs/{org_id}/keys", tag=TAG, access=Permission.KEYS_READ)
async def list_keys(call: Call, query: PageQuery) -> Page[Key]:
    """API keys of an organisation."""
    return await page_of(
        call,
        query,
        Page[Key],
        lambda position, limit: postgres_api_keys.list_keys(call.db, call.org_id, after=position, limit=limit),
    )


@operation("POST", "/orgs/{org_id}/keys", tag=TAG, access=Permission.KEYS_WRITE, status=201)
async def create_key(call: Call, body: NewKey) -> KeyWithSecret:
    """Create an API key. An organisation has at most 10,000 that are neither revoked nor expired."""
    services = call.services
    if body.mode is Mode.TEST and not services.has_simulator:
        raise NoTestModeError([InvalidField("/mode", "no test keys here")])
    await _need_room(call)
    project_id = body.project_id
    if project_id is None:
        project_id = await postgres_orgs.first_project(call.db, call.org_id)
        if project_id is None:
            raise ConflictError("Every project of the organisation is archived.")
    else:
        project = await postgres_orgs.find_project(call.db, call.org_id, project_id, lock=True)
        if project is None or project.archived_at is not None:
            raise InvalidFieldsError(InvalidField("/project_id", "no open project of this organisation"))
    secret, key_hash, hint = _secret(call, body.mode)
    key = await postgres_api_keys.add_key(
        call.db,
        key_id=new_id("key", services.random_bytes),
        org_id=call.org_id,
        project_id=project_id,
        mode=body.mode,
        key_hash=key_hash,
        hint=hint,
        created_by=call.actor.actor_id,
        settings=_settings(None, body),
    )
    await call.audit("key.create", key.id, after=key)
    return KeyWithSecret(**key.model_dump(), key=secret)


@operation("GET", "/orgs/{org_id}/keys/{key_id}", tag=TAG, access=Permission.KEYS_READ)
async def get_key(call: Call) -> Key:
    """One API key."""
    return found(await postgres_api_keys.find_key(call.db, call.org_id, call.param("key_id")))


@operation("PATCH", "/orgs/{org_id}/keys/{key_id}", tag=TAG, access=Permission.KEYS_WRITE, needs_revision=True)
async def change_key(call: Call, body: KeyChange) -> Key:
    """Change an API key. Every Envoy follows within a second."""
    before = await _key_to_change(call)
    call.match(before.revision)
    settings = _settings(before, body)
    if _has_expired(call, before.expires_at) and not _has_expired(call, settings.expires_at):
        await _need_room(call)
    after = await postgres_api_keys.change_key(call.db, before.id, settings)
    await call.audit("key.change", before.id, before=before, after=after)
    return after


@operation("POST", "/orgs/{org_id}/keys/{key_id}/rotate", tag=TAG, access=Permission.KEYS_WRITE)
async def rotate_key(call: Call, body: Rotation) -> KeyWithSecret:
    """Give a key a new secret; the old one works until the overlap is over. One overlap at a time."""
    before = await _key_to_change(call)
    runs_until = before.previous_valid_until
    if body.overlap_s and runs_until is not None and runs_until > call.services.now():
        raise ConflictError(
            f"The key before this one still works, until {runs_until:%Y-%m-%dT%H:%M:%SZ}. Wait, or rotate with overlap_s 0: that ends both.",
            [InvalidField("/overlap_s", "must be 0 while an overlap runs")],
        )
    secret, key_hash, hint = _secret(call, before.mode)
    after = await postgres_api_keys.rotate_key(
        call.db,
        before.id,
        key_hash=key_hash,
        hint=hint,
        previous_valid_until=call.services.now() + timedelta(seconds=body.overlap_s),
    )
    await call.audit("key.rotate", before.id, before=before, after=after)
    return KeyWithSecret(**after.model_dump(), key=secret)


@operation("DELETE", "/orgs/{org_id}/keys/{key_id}", tag=TAG, access=Permission.KEYS_WRITE)
async def revoke_key(call: Call) -> None:
    """Revoke an API key for good. Every Envoy refuses it within a second."""
    before = await _key_to_change(call)
    await postgres_api_keys.revoke_key(call.db, before.id)
    await call.audit("key.revoke", before.id, before=before)


@operation("GET", "/orgs/{org_id}/keys/{key_id}/propagation", tag=TAG, access=Permission.KEYS_READ)
async def get_propagation(call: Call) -> Propagation:
    """How far the latest change of an API key has got, its revocation included."""
    return found(await postgres_propagation.find_propagation(call.db, call.org_id, call.param("key_id")))


async def _need_room(call: Call) -> None:
    """For one more key that works.

    Raises:
        ConflictError: there is none.
    """
    if not await postgres_api_keys.has_room(call.db, call.org_id, call.services.now()):
        raise ConflictError(f"The organisation has {postgres_api_keys.KEYS_PER_ORG_MAX} keys. Revoke some first.")


def _has_expired(call: Call, expires_at: datetime | None) -> bool:
    return expires_at is not None and expires_at <= call.services.now()


async def _key_to_change(call: Call) -> Key:
    return found(await postgres_api_keys.find_key(call.db, call.org_id, call.param("key_id"), lock=True))


def _secret(call: Call, mode: Mode) -> tuple[str, KeyHash, str]:
    key = new_key(PREFIX_BY_MODE[mode], call.services.random_bytes)
    secret = key.get_secret_value()
    return secret, hash_key(secret, call.services.pepper), hint(key)


def _settings(before: Key | None, body: KeyChange) -> KeySettings:
    """What the key's settings are to be: those of the body, and for the rest what they were."""
    merged = (
        body
        if before is None
        else body.model_copy(
            update={name: getattr(before, name) for name in KeyChange.model_fields if name not in body.model_fields_set}
        )
    )
    return KeySettings(
        name=merged.name,
        models_allowed=merged.models_allowed,
        ip_allowed=merged.ip_allowed,
        budget_per_day_nano_usd=limit_nano_usd(merged.budget_per_day_usd),
        budget_per_month_nano_usd=limit_nano_usd(merged.budget_per_month_usd),
        requests_per_minute_max=merged.requests_per_minute_max,
        tokens_per_minute_max=merged.tokens_per_minute_max,
        concurrency_max=merged.concurrency_max,
        disabled=merged.disabled,
        expires_at=merged.expires_at,
    )
