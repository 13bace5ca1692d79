"""May a line of a batch pass, and what is held for it: as ext_authz decides about a request, at the one provider of its batch. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from billing_sink.batches.line_reader import BatchLine
from billing_sink.prices import PriceBook, UnknownPriceError
from gateway_core.api_keys import ApiKey
from gateway_core.endpoints import FACTS, Endpoint
from gateway_core.errors import (
    ApiError,
    endpoint_not_priced,
    endpoint_not_supported,
    feature_not_offered,
    model_not_allowed,
    model_not_found,
    service_tier_not_offered,
)
from gateway_core.extent import answers, dearest, input_tokens, output_tokens
from gateway_core.ids import ModelName, OrgId, ProviderName
from gateway_core.money import MAX_NANO_USD, NanoUsd
from gateway_core.offering import Offering
from gateway_core.pricing import PriceRow, UnpricedTierError, UnusablePriceError
from gateway_core.usage import BATCH, STANDARD


@dataclass(frozen=True, slots=True)
class Sold:
    """A model at a provider.

    Attributes:
        model: its own name, whichever of its names is asked for.
        orgs_allowed: organisations that may know of it; none means all.
        endpoints: those that it is sold on and that the provider serves in their own dialect.
    """

    model: ModelName
    provider: ProviderName
    upstream_model: str
    context_tokens: int
    max_output_tokens: int
    orgs_allowed: frozenset[OrgId]
    endpoints: frozenset[Endpoint]


Assortment = Mapping[ModelName, tuple[Sold, ...]]
"""By every name of a model, where it can be had: at the provider of the batch, or anywhere if the simulator answers it."""


@dataclass(frozen=True, slots=True)
class AdmittedLine:
    """A line that passes once `amount` is held for it.

    Attributes:
        tokens_max: what the model can read and write at once, whatever the line asks for.
        input_tokens_max: what is held for of input, if the line refers to what is not in it.
    """

    line: BatchLine
    sold: Sold
    amount: NanoUsd
    tokens_max: int
    input_tokens_max: int | None

    @property
    def offering(self) -> Offering:
        """What it gets."""
        return Offering(self.sold.model, {self.sold.provider: self.sold.upstream_model})


class RefusedLineError(ValueError):
    """A line that may not pass."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.code)
        self.error = error


_FEATURES: Final = "what it asks for beside text"


def admit(line: BatchLine, endpoint: Endpoint, key: ApiKey, assortment: Assortment, prices: PriceBook) -> AdmittedLine:
    """Decide about a line.

    Raises:
        RefusedLineError: it may not pass.
    """
    found = [each for each in assortment.get(line.model, ()) if _is_visible(each, key.org_id)]
    if not found:
        raise RefusedLineError(model_not_found(line.model))
    sold = next((each for each in found if endpoint in each.endpoints), None)
    if sold is None:
        paths = sorted(FACTS[each].path for other in found for each in other.endpoints)
        raise RefusedLineError(endpoint_not_supported(line.model, paths))
    if not (key.may_use(line.model) or key.may_use(sold.model)):
        raise RefusedLineError(model_not_allowed(line.model))
    facts = FACTS[endpoint]
    try:
        price = prices.find(sold.model, sold.provider, prices.as_of).served_at(BATCH)
        if not (price.is_free or facts.is_priced(price.rates.keys())):
            raise RefusedLineError(endpoint_not_priced(line.model))
        if not all(price.covers(meter) for meter in line.meters):
            raise RefusedLineError(feature_not_offered(line.model, _FEATURES))
        amount = _worst(line, endpoint, sold, price, key.org_id, prices)
    except (UnpricedTierError, UnusablePriceError, UnknownPriceError) as error:
        raise RefusedLineError(service_tier_not_offered(line.model)) from error
    read = input_tokens(line, facts, sold.context_tokens)
    return AdmittedLine(
        line,
        sold,
        amount,
        tokens_max=max(sold.context_tokens, read) + sold.max_output_tokens * answers(line, facts),
        input_tokens_max=read if line.has_references else None,
    )


def _is_visible(sold: Sold, org_id: OrgId) -> bool:
    return not sold.orgs_allowed or org_id in sold.orgs_allowed


def _worst(
    line: BatchLine, endpoint: Endpoint, sold: Sold, price: PriceRow, org_id: OrgId, prices: PriceBook
) -> NanoUsd:
    facts = FACTS[endpoint]
    worst = dearest(
        line,
        facts,
        price,
        prices.terms(org_id, sold.model, sold.provider, prices.as_of),
        context_tokens=sold.context_tokens,
        asked_tier=STANDARD,
    )
    tokens = output_tokens(line, facts, sold.max_output_tokens) * answers(line, facts)
    return NanoUsd(min(worst.nano_usd(tokens), MAX_NANO_USD))


def total(lines: Iterable[AdmittedLine]) -> NanoUsd:
    """What is held for all of them."""
    return NanoUsd(min(sum(each.amount for each in lines), MAX_NANO_USD))
