"""Rows of prices and of terms, as statements on schema `catalog` gather them: one row per version, its parts as arrays.

Which versions are read is for whoever asks: ext_authz wants those in force, billing_sink every one there ever was.
"""

import asyncpg

from gateway_core.pricing import OrgTerms, PriceRow


def price_row(row: asyncpg.Record) -> PriceRow:
    """A price from `revision` and the arrays `meters`, `conditions`, `costs` and `prices`."""
    return PriceRow.of(row["revision"], row["meters"], row["conditions"], row["costs"], row["prices"])


def org_terms(row: asyncpg.Record) -> OrgTerms:
    """Terms from `revision`, `markup_ppm` and the arrays `models`, `providers`, `meters` and `prices`."""
    overrides = zip(row["models"], row["providers"], row["meters"], row["prices"], strict=True)
    return OrgTerms.of(row["revision"], row["markup_ppm"], list(overrides))
