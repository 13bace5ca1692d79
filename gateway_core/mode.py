"""Live or test: whether a key spends real money at real providers, or play money at the simulator. Pure."""

from enum import StrEnum


class Mode(StrEnum):
    """Of a key, of the requests made with it, and of the accounts that pay for them. Never changes, and never meets the other."""

    LIVE = "live"
    TEST = "test"
