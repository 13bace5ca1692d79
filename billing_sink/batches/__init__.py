"""Batches of requests, from the file that a client has sent to the ledger."""
