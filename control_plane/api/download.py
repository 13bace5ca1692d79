"""Answers that are files, not JSON."""

from typing import ClassVar

from pydantic import Field

from control_plane.resource import Resource


class Download(Resource):
    """A file."""

    media_type: ClassVar[str]

    filename: str
    content: bytes = Field(repr=False)


class Csv(Download):
    """A table (RFC 4180), in UTF-8."""

    media_type: ClassVar[str] = "text/csv"


class Pdf(Download):
    """A document."""

    media_type: ClassVar[str] = "application/pdf"


class Parquet(Download):
    """A table with types, for programs."""

    media_type: ClassVar[str] = "application/vnd.apache.parquet"
