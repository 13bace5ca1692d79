"""Secrets that leave by mail or as refresh tokens: 256 random bits, of which only a keyed hash is kept."""

from base64 import urlsafe_b64encode

from control_plane.api.context import Services
from gateway_core.api_keys import KeyHash, hash_key


def new_secret(services: Services) -> tuple[str, KeyHash]:
    """A secret and what is stored in its place."""
    secret = urlsafe_b64encode(services.random_bytes(32)).decode().rstrip("=")
    return secret, hash_key(secret, services.pepper)
