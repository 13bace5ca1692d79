"""Gemini's generateContent, which only providers speak here."""
