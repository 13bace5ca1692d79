"""The nouns every service shares: names on the wire, ids, money, usage, prices, clock, settings. Knows no service."""
