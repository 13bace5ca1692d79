"""Gemini's generateContent, read and written on both sides."""
