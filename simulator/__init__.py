"""Stands in for model providers: three dialects, words and counts that repeat, faults on request. Knows no service."""
