"""From the spool to the ledger to ClickHouse: every finished request is rated, posted once, and made visible."""
