"""What every answer of the API is made from, whatever it is about. Pure."""

from typing import ClassVar

from pydantic import BaseModel, ConfigDict, Field


class Resource(BaseModel):
    """What the API answers with: read from a row, shown as JSON."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="ignore")


class Revised(Resource):
    """A resource that can change. Its revision is its ETag."""

    revision: int = Field(description="Counts the changes; in quotes, it is the ETag.")
