"""What requests came to, added up by whatever is asked for: from ClickHouse, for charts and tables."""
