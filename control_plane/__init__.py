"""Accounts and catalogue in Postgres, the operators' API, and Envoy's configuration made from them."""
