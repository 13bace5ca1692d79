"""HTTP: parse, one call, render."""
