"""OpenAI's Responses API, which only clients speak here."""
