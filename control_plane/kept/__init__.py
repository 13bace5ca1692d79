"""What providers keep for organisations, as far as it is listed."""
