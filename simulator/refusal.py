"""The one way a request is refused, before a dialect gives it its own words. Pure."""

from collections.abc import Mapping
from typing import Final

RETRY_AFTER_S: Final = 1
"""What a 429 tells the client to wait."""

MESSAGE_BY_STATUS: Final[Mapping[int, str]] = {
    400: "The request was refused because a knob of the simulator asked for it.",
    401: "The credential is not valid.",
    413: "The request is larger than the maximum of 64 MiB.",
    429: f"Rate limit reached. Please try again in {RETRY_AFTER_S}s.",
    500: "The server had an error while processing your request.",
    503: "The service is temporarily unavailable. Please try again later.",
    504: "The request was not answered in time.",
    529: "Overloaded",
}


class RefusalError(Exception):
    """A request that gets an error in place of an answer.

    Args:
        status: the HTTP status.
        message: for people; the usual words for that status when left out.
        param: the field of the body that is at fault, if one is.
    """

    def __init__(self, status: int, message: str | None = None, *, param: str | None = None) -> None:
        self.status = status
        self.message = message or MESSAGE_BY_STATUS[status]
        self.param = param
        super().__init__(self.message)
