"""What providers say was used, against what was recorded here."""
