"""Who sends the traffic: organisations with their projects and the keys of their programs. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from gateway_core.mode import Mode


@dataclass(frozen=True, slots=True)
class App:
    """A program with a key of its own.

    Attributes:
        name: of the key too; no two have the same.
        weight: how much of the traffic is its, beside the others.
        client: how it calls itself, as `User-Agent`.
        requests_per_minute_max: the limit of its key.
    """

    name: str
    weight: int
    client: str
    mode: Mode = Mode.LIVE
    requests_per_minute_max: int | None = None


@dataclass(frozen=True, slots=True)
class Project:
    """A project, and what it may spend in a day, in US dollars; None for all there is."""

    name: str
    apps: tuple[App, ...]
    budget_per_day_usd: str | None = None


@dataclass(frozen=True, slots=True)
class Tenant:
    """An organisation.

    Attributes:
        markup_percent: what it pays on top of list prices.
        has_money: whether the operator gives it credit.
    """

    name: str
    projects: tuple[Project, ...]
    markup_percent: str = "0"
    has_money: bool = True


_OPENAI: Final = "OpenAI/Python 2.8.0"
_ANTHROPIC: Final = "Anthropic/Python 0.74.0"
_NODE: Final = "OpenAI/JS 6.9.0"

HURRIED: Final = App("trial", 0, _NODE, requests_per_minute_max=4)
"""Sends more than its key may."""
TESTER: Final = App("nightly-tests", 0, _OPENAI, mode=Mode.TEST)
PENNILESS: Final = App("prototype", 0, "curl/8.14.1")

TENANTS: Final = (
    Tenant(
        "Harbour Logistics",
        (
            Project("Support", (App("support-chat", 8, _OPENAI), App("mail-triage", 4, _OPENAI))),
            Project("Search", (App("document-index", 3, _NODE),)),
        ),
        markup_percent="20",
    ),
    Tenant(
        "Lumen Health",
        (Project("Assistant", (App("ward-assistant", 5, _ANTHROPIC), App("letters", 2, _OPENAI)), "500.00"),),
        markup_percent="15",
    ),
    Tenant(
        "Pixel Forge",
        (
            Project("Game", (App("dialogue", 4, _NODE), App("artwork", 1, _OPENAI))),
            Project("Tools", (HURRIED, TESTER)),
        ),
        markup_percent="10",
    ),
    Tenant("Paper Boat", (Project("Prototype", (PENNILESS,)),), has_money=False),
)


def apps() -> Iterator[tuple[App, Project]]:
    """Every program, and the project it is of."""
    for tenant in TENANTS:
        for project in tenant.projects:
            for app in project.apps:
                yield app, project
