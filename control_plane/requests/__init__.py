"""What became of single requests: who served them, what was tried before, what they cost."""
