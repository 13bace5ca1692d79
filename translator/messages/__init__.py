"""Anthropic's messages, read and written on both sides."""
