"""What public lists of models and prices become, word for word.

A case is a request body, and beside it the document and what was skipped. `--update-golden` writes the latter anew.
"""

from pathlib import Path

import pytest
import yaml

from control_plane.api.imports import Import
from control_plane.api.strict_json import parse_object
from control_plane.catalog.document import CatalogDocument
from control_plane.catalog.imports import Choice, Imported, convert
from control_plane.catalog.price_specs import MeterPrice, PriceSpec, Unit
from control_plane.catalog.specs import DeploymentSpec, GroupMember, ModelSpec, ProviderSpec, RouteSpec
from gateway_core.providers import ProviderKind
from gateway_core.usage import Meter

FOLDER = Path(__file__).parent / "imports"
CASES = sorted(path.stem for path in FOLDER.glob("*.json"))


def imported(case: str, current: CatalogDocument | None = None) -> Imported:
    raw = (FOLDER / f"{case}.json").read_bytes()
    body = Import.model_validate_json(raw, strict=True)
    content = parse_object(raw)["content"]
    assert isinstance(content, dict)
    choice = Choice(body.models, body.providers, body.provider_base_urls)
    return convert(body.format, content, choice, current or CatalogDocument())


@pytest.mark.parametrize("case", CASES)
def test_a_list_becomes_exactly_the_document_of_its_golden_file(case: str, request: pytest.FixtureRequest) -> None:
    found = imported(case)
    written = {
        "document": found.document.model_dump(mode="json", exclude_defaults=True),
        "skipped": [each.model_dump() for each in found.skipped],
    }
    text = yaml.safe_dump(written, sort_keys=True, width=120)
    golden = FOLDER / f"{case}.yaml"
    if request.config.getoption("--update-golden"):
        golden.write_text(text, encoding="utf-8")
    assert text == golden.read_text(encoding="utf-8"), f"{golden.name}: --update-golden writes it anew"


@pytest.mark.parametrize("case", CASES)
def test_what_is_written_down_can_be_read_back_and_nothing_in_it_is_published(case: str) -> None:
    document = imported(case).document
    assert CatalogDocument.model_validate_json(document.model_dump_json(exclude_defaults=True)) == document
    assert document.routes
    assert not any(route.published for route in document.routes.values())


def test_what_the_list_does_not_tell_stays_as_it_is() -> None:
    unit = Unit.TOKEN
    current = CatalogDocument(
        providers={"openai": ProviderSpec(kind=ProviderKind.OPENAI, base_url="https://proxy.example/v1")},
        models={
            "tiny-1": ModelSpec(
                owned_by="us", context_tokens=1, max_output_tokens=1, aliases=["tiny", "gem-3"], replacement="tiny-2"
            )
        },
        deployments={"tiny-1": {"openai": DeploymentSpec(upstream_model="tiny-1-2026")}},
        prices={
            "tiny-1": {
                "openai": PriceSpec(
                    prices=[
                        MeterPrice(meter=Meter.INPUT, unit=unit, cost="0.00000015", price="0.000001"),
                        MeterPrice(meter=Meter.OUTPUT, unit=unit, cost="0.000001", price="0.000002"),
                        MeterPrice(meter=Meter.IMAGE_INPUT, unit=unit, cost="0.000003"),
                    ]
                )
            }
        },
        routes={"main": RouteSpec(match="tiny-1", groups=[[GroupMember(provider="openai")]])},
    )
    found = imported("litellm", current)
    assert "openai" not in found.document.providers
    assert "tiny-1" not in found.document.deployments
    assert "tiny-1" not in found.document.routes
    model = found.document.models["tiny-1"]
    assert (model.owned_by, model.aliases, model.replacement) == ("us", ["gem-3", "tiny"], "tiny-2")
    assert model.context_tokens == 10_000
    prices = {
        each.meter: (each.unit, each.cost, each.price) for each in found.document.prices["tiny-1"]["openai"].prices
    }
    assert prices[Meter.INPUT] == (unit, "0.00000015", "0.000001")
    assert prices[Meter.OUTPUT] == (unit, "0.0000006", "0.000002")
    assert prices[Meter.IMAGE_INPUT] == (unit, "0.000003", None)
    assert prices[Meter.CACHED_INPUT] == (Unit.MILLION_TOKENS, "0.075", None)
    assert "gem-3" not in found.document.models
    assert any(each.reason == "is an alias of tiny-1" for each in found.skipped)
