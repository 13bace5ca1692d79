"""Decides about a request before it is sent anywhere: who is it, may they, can they pay."""
