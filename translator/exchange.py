"""One attempt as a state machine: what Envoy tells of it comes in, what Envoy is to do with it goes out. No I/O.

Order is Envoy's: headers and whole body of the request, headers of the answer, its body, whole or in pieces. Which dialects they
are in, a header says that only Envoy can have set.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from gateway_core.contract import Header
from gateway_core.endpoints import Dialect
from gateway_core.errors import TRANSLATOR_ERROR
from translator.chat.peculiarities import NONE, Peculiarities
from translator.faults import UnreadableAnswerError
from translator.reply import Failure
from translator.translation import (
    CLIENT_SIDES,
    PROVIDER_SIDES,
    Answer,
    NewCallId,
    Request,
    StreamedAnswer,
    UntranslatableError,
    translate_request,
)

DROPPED_BYTES_MAX: Final = 2000
_OK: Final = range(200, 300)
_BAD_GATEWAY: Final = 502
_STILL_THERE: Final = b":\n\n"
"""A comment, for whoever ends streams that pause: something came of which there is nothing to say. No event, and no output."""


class Outcome(Enum):
    """How an attempt's translation went, for the metric."""

    TRANSLATED = auto()
    UNTRANSLATABLE = auto()
    REFUSED = auto()
    """The provider did not serve it, and its error was put into the client's dialect; or Envoy has said in it that nobody did."""
    UNREADABLE = auto()


class OutOfOrderError(Exception):
    """Something else came than an attempt has next, or headers that are not ours: a fault of the configuration."""


@dataclass(frozen=True, slots=True)
class Pair:
    """The two dialects of an attempt."""

    client: Dialect
    provider: Dialect

    @staticmethod
    def parse(text: str) -> "Pair":
        """Read what `str` has written.

        Raises:
            OutOfOrderError: it has not, or nobody here speaks one of them.
        """
        client, _, provider = text.partition("/")
        try:
            found = Pair(Dialect(client), Dialect(provider))
        except ValueError as error:
            raise OutOfOrderError("not a pair of dialects") from error
        if found.client not in CLIENT_SIDES or found.provider not in PROVIDER_SIDES:
            raise OutOfOrderError("a pair that nobody translates")
        return found

    def __str__(self) -> str:
        return f"{self.client}/{self.provider}"


@dataclass(frozen=True, slots=True)
class GoOn:
    """Nothing is changed."""


@dataclass(frozen=True, slots=True)
class SendOn:
    """The provider is sent this."""

    path: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Announce:
    """The headers of the answer are good; its body follows whole, or in pieces."""

    streamed: bool
    dropped: str


@dataclass(frozen=True, slots=True)
class GiveBack:
    """The client is sent this in the place of what came."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Refuse:
    """The client is answered with an error, unless another provider is asked.

    Attributes:
        is_untranslatable: the reason is in the request, not in what was done with it.
    """

    status: int
    body: bytes
    is_untranslatable: bool


Step = GoOn | SendOn | Announce | GiveBack | Refuse


class Exchange:
    """One attempt."""

    def __init__(self, *, now_s: int, new_call_id: NewCallId) -> None:
        self._now_s = now_s
        self._new_call_id = new_call_id
        self._pair: Pair | None = None
        self._path = ""
        self._peculiarities = NONE
        self._request: Request | None = None
        self._status = 0
        self._is_ours = False
        self._stream: StreamedAnswer | None = None
        self.outcome = Outcome.TRANSLATED

    @property
    def pair(self) -> Pair | None:
        """Its dialects, once they are known."""
        return self._pair

    def request_headers(self, headers: Mapping[str, str]) -> Step:
        """The headers of the request."""
        self._pair = Pair.parse(headers.get(Header.TRANSLATE, ""))
        self._path = headers.get(":path", "")
        self._peculiarities = Peculiarities.parse(headers.get(Header.CHAT_FIELDS, ""))
        return GoOn()

    def request_body(self, body: bytes) -> Step:
        """The whole body of the request."""
        if self._pair is None:
            raise OutOfOrderError("a body before its headers")
        try:
            self._request = translate_request(
                body,
                self._path,
                self._pair.client,
                self._pair.provider,
                now_s=self._now_s,
                new_call_id=self._new_call_id,
                peculiarities=self._peculiarities,
            )
        except UntranslatableError as error:
            self.outcome = Outcome.UNTRANSLATABLE
            return Refuse(400, error.body, is_untranslatable=True)
        return SendOn(self._request.path, self._request.body)

    def response_headers(self, headers: Mapping[str, str]) -> Step:
        """The headers of the answer."""
        request = self._asked()
        self._is_ours = Header.OWN_REPLY in headers
        if self._is_ours:
            self.outcome = Outcome.REFUSED
            return GoOn()
        self._status = int(headers.get(":status", "0"))
        is_stream = headers.get("content-type", "").lower().startswith("text/event-stream")
        if self._status in _OK and is_stream:
            self._stream = request.answer.stream()
        return Announce(self._stream is not None, _listed(request.dropped))

    def response_body(self, piece: bytes, *, is_last: bool) -> Step:
        """The whole body of the answer, or a piece of a stream."""
        answer = self._asked().answer
        if self._is_ours:
            return GoOn()
        if self._stream is not None:
            written = self._stream.feed(piece)
            return GiveBack(written + self._stream.end() if is_last else written or self._sign_of_life())
        if self._status not in _OK:
            self.outcome = Outcome.REFUSED
            return GiveBack(answer.refusal(self._status, piece))
        return self._whole(answer, piece)

    def _whole(self, answer: Answer, body: bytes) -> Step:
        try:
            return GiveBack(answer.whole(body))
        except UnreadableAnswerError:
            self.outcome = Outcome.UNREADABLE
            failure = Failure(_BAD_GATEWAY, TRANSLATOR_ERROR.message, code=TRANSLATOR_ERROR.code)
            return Refuse(_BAD_GATEWAY, answer.failure(failure), is_untranslatable=False)

    def _sign_of_life(self) -> bytes:
        # Google's clients take every line of a stream for JSON.
        is_google = self._pair is not None and self._pair.client is Dialect.GEMINI
        return b"" if is_google else _STILL_THERE

    def _asked(self) -> Request:
        if self._request is None:
            raise OutOfOrderError("an answer before its request")
        return self._request


def _listed(dropped: Iterable[str]) -> str:
    """Names of fields as a header has them; a client chose some of them, so only plain ones are said."""
    plain = [name for name in dropped if name.isascii() and name.isprintable() and " " not in name and "," not in name]
    return ", ".join(plain)[:DROPPED_BYTES_MAX]
