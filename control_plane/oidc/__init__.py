"""Log-in with an account at somebody else's OpenID Connect issuer."""
