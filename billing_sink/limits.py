"""What an attempt tells of its provider's limits: kept until something newer is told, for whoever decides where requests go. Pure."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from billing_sink.access_log import AttemptLine
from gateway_core.clusters import is_own_key_cluster, provider_of_cluster
from gateway_core.ids import ProviderName
from gateway_core.provider_limits import NONE, ProviderLimits, parse_limits

_TOO_MANY_REQUESTS: Final = 429


@dataclass(frozen=True, slots=True)
class ToldLimits:
    """What a provider has said about one of its models.

    Attributes:
        upstream_model: its own name for it; empty where the route did not say.
        status: of the answer that said so.
    """

    provider: ProviderName
    upstream_model: str
    told_at: datetime
    status: int
    limits: ProviderLimits

    @property
    def deployment(self) -> tuple[ProviderName, str]:
        """What it is about. Vendors count each model for itself."""
        return self.provider, self.upstream_model


def told_limits(line: AttemptLine) -> ToldLimits | None:
    """What is to be kept of an attempt; None where it says nothing. A refusal says something without any words, too.

    A refusal is there as soon as it is over. An answer may take long after its headers, and when those came is not in the line: they are
    taken to have come at its beginning, which makes a limit shorter than it is, and never longer.
    """
    provider = provider_of_cluster(line.cluster or "")
    # With an organisation's own key they are limits of that.
    if provider is None or is_own_key_cluster(line.cluster or ""):
        return None
    told_at = line.ended_at if line.has_failed else line.start_time
    limits = parse_limits(line.limits, told_at)
    # Who is full by our own limits was not asked, so that says nothing.
    if limits == NONE and line.answered != _TOO_MANY_REQUESTS:
        return None
    name = ProviderName(provider)
    upstream_model = line.offering.deployments.get(name, "") if line.offering else ""
    return ToldLimits(name, upstream_model, told_at, line.status, limits)
