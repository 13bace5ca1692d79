"""What organisations' own systems are told: an outbox in Postgres, and whoever carries from it."""
