"""What the stack takes from the environment it was started in: everything, sorted by who may see it."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PROVIDER_KEYS: Mapping[str, str] = {
    "OPENAI_API_KEY": "openai",
    "ANTHROPIC_API_KEY": "anthropic",
    "GEMINI_API_KEY": "gemini",
}
"""The provider that is real, not simulated, when the variable is set."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The caller's environment in two parts."""

    general: Mapping[str, str]
    """For every service."""
    provider_keys: Mapping[str, str]
    """For the one command that stores them."""

    @classmethod
    def load(cls, secret_names: Iterable[str]) -> "Environment":
        """Read this process's environment.

        Args:
            secret_names: the stack's own secrets. Services prefer a variable to a file, so a variable left over in
                somebody's shell would otherwise send them to another database.
        """
        return cls.sorted(os.environ, secret_names)  # noqa: TID251 - this is where settings are read

    @classmethod
    def sorted(cls, variables: Mapping[str, str], secret_names: Iterable[str]) -> "Environment":
        """Sort variables into the two parts; a provider's key that is empty counts as not set."""
        hidden = {name.upper() for name in secret_names} | PROVIDER_KEYS.keys()
        return cls(
            general={name: value for name, value in variables.items() if name.upper() not in hidden},
            provider_keys={name: variables[name] for name in PROVIDER_KEYS if variables.get(name)},
        )
