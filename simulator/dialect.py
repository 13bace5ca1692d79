"""What every dialect can do, and how all of them read a body. Pure."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gateway_core.api_keys import bearer_token
from simulator.chat import Answer, ChatRequest, JsonObject, Stamp
from simulator.refusal import RefusalError


class Dialect(Protocol):
    """A provider's way to read requests and write answers. Stateless but for what the path says."""

    @property
    def stream_type(self) -> str:
        """Content type of a stream."""

    def check_headers(self, headers: Mapping[str, str], query: Mapping[str, str]) -> None:
        """Demand a credential, any one.

        Args:
            headers: looked up without regard to case.
            query: parameters of the URL.

        Raises:
            RefusalError: it is missing.
        """

    def parse(self, body: bytes) -> ChatRequest:
        """Read a request.

        Raises:
            RefusalError: it is not one of this dialect.
        """

    def unary(self, answer: Answer) -> JsonObject:
        """The answer as one body."""

    def stream(self, answer: Answer) -> list[bytes]:
        """The answer as the parts of a stream, one a token and some around them."""

    def error(self, refusal: RefusalError, stamp: Stamp) -> JsonObject:
        """The body of a refusal."""

    def headers(self, stamp: Stamp, *, status: int, latency_ms: int) -> dict[str, str]:
        """The headers this provider adds to all its responses."""


class Body(BaseModel):
    """A part of a request body. Fields that are not named are the provider's business, not ours, and pass."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, strict=True, extra="ignore")


ModelName = Annotated[str, Field(min_length=1, max_length=256)]
OutputTokensMax = Annotated[int, Field(ge=1, le=10_000_000)]

_BodyT = TypeVar("_BodyT", bound=Body)


def parse_body(kind: type[_BodyT], body: bytes) -> _BodyT:
    """Read a body, or say in a 400 what is wrong with its first wrong field."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        param = ".".join(str(step) for step in fault["loc"]) or None
        raise RefusalError(400, f"{param}: {fault['msg']}" if param else fault["msg"], param=param) from error


def has_bearer(headers: Mapping[str, str]) -> bool:
    """Whether there is an `Authorization: Bearer` header with something in it."""
    return bearer_token(headers.get("authorization")) is not None
