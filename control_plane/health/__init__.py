"""Whether providers are well: what is seen of them, what is asked of them, and what follows from it."""
