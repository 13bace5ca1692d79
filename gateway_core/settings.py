"""Settings: the base every service's settings class builds on.

Values come from the environment (`TOLLGATE_` + the field's name) or from files of that name in the directory that
TOLLGATE_SECRETS_DIR names, which is how secrets are handed over. Read once, at start, in `__main__`.
"""

import os
from typing import ClassVar, Self

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ServiceSettings(BaseSettings):
    """What all services need to know."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="TOLLGATE_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    postgres_dsn: SecretStr
    log_level: str = "INFO"

    @classmethod
    def load(cls) -> Self:
        """Read the environment and, if TOLLGATE_SECRETS_DIR is set, the files in it. The environment wins."""
        directory = os.environ.get("TOLLGATE_SECRETS_DIR")  # noqa: TID251 - this is where settings are read
        return cls(_secrets_dir=directory)  # type: ignore[call-arg]  # a parameter of BaseSettings the plugin hides
