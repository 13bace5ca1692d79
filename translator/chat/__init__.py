"""OpenAI's chat completions, read and written on both sides."""
