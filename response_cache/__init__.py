"""Answers that were given before, told again: an external processor of Envoy, with Valkey or Redis behind it."""
