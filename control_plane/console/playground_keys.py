"""What the playground asks the gateway with: a key for each visitor, organisation and mode, which no page sees.

It is an API key like any other, made by the API for the visitor, in the audit log and in the list of keys. It is good for an hour and kept
in the memory of this process alone: after a restart, or at another replica, another one is made, and the one before ends by itself.
"""

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from pydantic import SecretStr

from control_plane.console.visitor import Visitor
from control_plane.errors import RefusedError, UnauthenticatedError
from gateway_core.api_keys import KeyHash

NAME: Final = "Playground"
LIFETIME: Final = timedelta(hours=1)
_SPARE: Final = timedelta(minutes=10)
"""A key with less than this left is not begun with any more: an answer may take as long."""
KEPT_MAX: Final = 1000
"""Of what is more, the oldest is forgotten, and ends by itself."""


@dataclass(frozen=True, slots=True)
class _Owner:
    cookie_hash: KeyHash
    org_id: str
    mode: str


@dataclass(frozen=True, slots=True)
class _Kept:
    key_id: str
    key: SecretStr
    expires_at: datetime


class PlaygroundKeys:
    """The keys of everybody who has used the playground of this process in the last hour."""

    def __init__(self) -> None:
        self._kept: OrderedDict[_Owner, _Kept] = OrderedDict()

    async def key_for(self, visitor: Visitor, org_id: str, mode: str) -> SecretStr:
        """The visitor's key, made if there is none.

        Raises:
            RefusedError: the visitor may make no keys there.
        """
        if visitor.cookie_hash is None:
            raise UnauthenticatedError
        owner, now = _Owner(visitor.cookie_hash, org_id, mode), visitor.services.now()
        kept = self._kept.get(owner)
        if kept is not None and kept.expires_at - now > _SPARE:
            return kept.key
        expires_at = now + LIFETIME
        body = {"name": NAME, "mode": mode, "expires_at": expires_at.isoformat()}
        made = await visitor.ask("create_key", body=body, org_id=org_id)
        key = SecretStr(made["key"])
        self._kept.pop(owner, None)
        self._kept[owner] = _Kept(made["id"], key, expires_at)
        # All live as long, so the oldest end first.
        while len(self._kept) > KEPT_MAX or next(iter(self._kept.values())).expires_at <= now:
            self._kept.popitem(last=False)
        return key

    def forget(self, visitor: Visitor, org_id: str, mode: str) -> None:
        """Make another one next time: the gateway does not take this one."""
        if visitor.cookie_hash is not None:
            self._kept.pop(_Owner(visitor.cookie_hash, org_id, mode), None)

    async def revoke(self, visitor: Visitor) -> None:
        """End all keys of a visitor who leaves; one that cannot be, ends by itself."""
        theirs = [owner for owner in self._kept if owner.cookie_hash == visitor.cookie_hash]
        for owner in theirs:
            kept = self._kept.pop(owner)
            try:
                await visitor.ask("revoke_key", org_id=owner.org_id, key_id=kept.key_id)
            except RefusedError:
                continue
