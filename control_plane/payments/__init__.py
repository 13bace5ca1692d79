"""What organisations have, owe and pay: balances, credits, top-ups. The ledger itself is billing_sink's (schema `billing`)."""
