"""Which organisations have keys of their own at which providers. Pure.

Envoy and this process come to know of a new key at different moments. Envoy says up to which change it has come, and a request is decided by
just that; so it is held for as it will be sent.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final, NewType

from gateway_core.ids import OrgId, ProviderName

OwnKeys = NewType("OwnKeys", Mapping[ProviderName, bool])
"""Of one organisation: the providers, and whether our key is tried there when its own is refused."""

NONE: Final = OwnKeys({})

OVERLAP: Final = timedelta(seconds=60)
"""How long an Envoy may be behind."""

FORMER_MAX: Final = 64
"""How many earlier readings are remembered."""


@dataclass(frozen=True, slots=True)
class OwnKeyBook:
    """All of them, as of a change of which organisations have keys where.

    Attributes:
        as_of: the revision of that change.
        former: those before, the latest first.
        until: of a former one: how long it counts.
    """

    as_of: int = 0
    by_org: Mapping[OrgId, OwnKeys] = field(default_factory=dict)
    former: tuple["OwnKeyBook", ...] = ()
    until: datetime | None = None

    def find(self, org_id: OrgId, as_of: int | None, now: datetime) -> OwnKeys | None:
        """The keys of an organisation, as an Envoy has them that has come up to a change; None if that is not known.

        Who has none now is sent on with ours by an Envoy that has one or is not heard of: it goes by what it is told.
        """
        if as_of is None:
            return NONE
        for each in (self, *self.former):
            if each.as_of == as_of and (each.until is None or now < each.until):
                return each.by_org.get(org_id, NONE)
        return None if org_id in self.by_org else NONE

    def after(self, before: "OwnKeyBook", now: datetime) -> "OwnKeyBook":
        """This reading, which remembers the one before and what that one remembers."""
        former = tuple(each for each in before.former if each.until is not None and now < each.until)
        if before.as_of != self.as_of:
            former = (replace(before, former=(), until=now + OVERLAP), *former)
        return replace(self, former=former[:FORMER_MAX])
