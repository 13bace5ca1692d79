"""Settings of the simulator. It has no database, hence no `ServiceSettings`."""

import os
from typing import ClassVar, Self

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from simulator.knobs import Knobs, turn


class SimulatorSettings(BaseSettings):
    """Read from the environment: `TOLLGATE_` and the field's name."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix="TOLLGATE_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    simulator_host: str = "127.0.0.1"
    simulator_port: int = Field(default=8090, ge=0, le=65535)
    """0 takes any free port; the line `simulator_started` on standard error names it."""
    simulator_knobs: str = ""
    """Where the knobs stand when a request does not turn them; the same words as in a request."""
    simulator_record: bool = False
    simulator_record_max: int = Field(default=1000, ge=1, le=1000)
    simulator_stripe_webhook_url: str | None = None
    """Where the stand-in for Stripe delivers its events; without it, or without the secret, there is no stand-in."""
    stripe_webhook_secret: SecretStr | None = None
    log_level: str = "INFO"

    @classmethod
    def load(cls) -> Self:
        """Read the environment and, if TOLLGATE_SECRETS_DIR is set, the files in it. The environment wins."""
        directory = os.environ.get("TOLLGATE_SECRETS_DIR")  # noqa: TID251 - this is where settings are read
        return cls(_secrets_dir=directory)

    @field_validator("simulator_knobs")
    @classmethod
    def _refuse_unknown_knobs(cls, text: str) -> str:
        turn(Knobs(), text)
        return text

    @property
    def knobs(self) -> Knobs:
        """`simulator_knobs`, read."""
        return turn(Knobs(), self.simulator_knobs)
