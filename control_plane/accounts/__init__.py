"""Organisations, API keys and machine tokens."""
