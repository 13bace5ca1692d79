"""Which provider a value of a request keeps it to: what `by_value` of `envoy/lua/choice.lua` computes. Pure.

Weighted rendezvous hashing: each provider draws a time by the value and its own name, and the soonest is first. The share of one that
leaves is spread over the others, and nothing else moves.
"""

from collections.abc import Mapping, Sequence
from math import log
from typing import Final

from gateway_core.clusters import provider_cluster
from gateway_core.ids import ProviderName

_WORD: Final = 1 << 32
_VALUE_BYTES_MAX: Final = 512


def order_for(value: str, weights: Mapping[ProviderName, int]) -> Sequence[ProviderName]:
    """The providers of a group, with their weights, in the order in which a request with this value tries them.

    The value is taken as it stands in the body.
    """
    of_value = _hash_of(value.encode()[:_VALUE_BYTES_MAX])

    def rank(provider: ProviderName) -> tuple[float, ProviderName]:
        drawn = _mixed(of_value ^ _hash_of(provider_cluster(provider).encode()))
        return -log((drawn + 0.5) / _WORD) / weights[provider], provider

    return sorted(weights, key=rank)


def _hash_of(text: bytes) -> int:
    """FNV-1a."""
    found = 2166136261
    for each in text:
        found = (found ^ each) * 16777619 % _WORD
    return found


def _mixed(word: int) -> int:
    """The end of Murmur 3: every bit depends on every other."""
    word = (word ^ word >> 16) * 2246822507 % _WORD
    word = (word ^ word >> 13) * 3266489909 % _WORD
    return word ^ word >> 16
