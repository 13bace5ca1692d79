"""How hard to think: OpenAI's words against tokens. Pure.

A budget is a share of the bound on the output, since providers count thinking within it. The shares are ours; the way back takes
the word whose share is nearest, so a word that went to a budget comes back as itself.
"""

from collections.abc import Mapping
from typing import Final

from translator.conversation import Effort

BUDGET_MIN: Final = 1024
"""Anthropic takes no smaller one."""

SHARES: Final[Mapping[Effort, float]] = {
    Effort.MINIMAL: 0.1,
    Effort.LOW: 0.2,
    Effort.MEDIUM: 0.5,
    Effort.HIGH: 0.8,
    Effort.XHIGH: 0.95,
}


def budget_of(effort: Effort, max_tokens: int) -> int | None:
    """Tokens to think; None if so short an answer leaves no room for the least there is."""
    budget = max(BUDGET_MIN, int(SHARES[effort] * max_tokens))
    return budget if budget < max_tokens else None


def effort_of(budget_tokens: int, max_tokens: int | None) -> Effort:
    """The word for a budget; of an unbounded answer, as if it were bounded at twice the budget."""
    share = budget_tokens / max(1, max_tokens or 2 * budget_tokens)
    return min(SHARES, key=lambda effort: abs(SHARES[effort] - share))
