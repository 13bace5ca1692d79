"""One attempt: the request to the provider, and its answer back to the client, between bytes. Pure.

Which readers and writers belong to a dialect is said here and nowhere else.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from gateway_core.endpoints import Dialect
from translator.asked import Asked
from translator.chat import reply_reader as chat_replies
from translator.chat import reply_writer as chat_answers
from translator.chat import request_reader as chat_requests
from translator.chat import request_writer as chat_asks
from translator.chat.peculiarities import NONE, Peculiarities
from translator.conversation import Conversation
from translator.failures import broken_stream, read_failure
from translator.faults import Feature, InexpressibleError, UnreadableAnswerError, UnsupportedFieldError
from translator.gemini import asked_path as gemini_paths
from translator.gemini import reply_reader as gemini_replies
from translator.gemini import reply_writer as gemini_answers
from translator.gemini import request_reader as gemini_requests
from translator.gemini import request_writer as gemini_asks
from translator.json_values import JsonObject, ShapeError, compact, parse_object
from translator.messages import reply_reader as messages_replies
from translator.messages import reply_writer as messages_answers
from translator.messages import request_reader as messages_requests
from translator.messages import request_writer as messages_asks
from translator.reply import Ended, Event, Failed, Failure, Reply
from translator.responses import reply_writer as responses_answers
from translator.responses import request_reader as responses_requests
from translator.sse import EventReader, OversizedEventError

DONE: Final = b"[DONE]"
"""What OpenAI sends as its last event, which is no JSON."""


class StreamReader(Protocol):
    """Of a provider's dialect."""

    def read(self, event: JsonObject) -> Iterable[Event]:
        """What an event says."""

    def end(self) -> Iterable[Event]:
        """What the end of the stream says; nothing if it broke off."""


class StreamWriter(Protocol):
    """Of a client's dialect."""

    def write(self, event: Event) -> bytes:
        """What a client is sent for an event."""


@dataclass(frozen=True, slots=True)
class ClientSide:
    """What is needed of a dialect that clients speak.

    Attributes:
        told_behind: what the path of a request tells: the provider's own path, and fields beside those of the body.
    """

    read_request: Callable[[JsonObject], Conversation]
    field_names: Mapping[Feature, str]
    write_reply: Callable[[Reply, Asked], JsonObject]
    write_failure: Callable[[Failure], JsonObject]
    stream_writer: Callable[[Asked], StreamWriter]
    told_behind: Callable[[str], tuple[str, JsonObject]] = lambda path: (path, {})


NewCallId = Callable[[], str]


@dataclass(frozen=True, slots=True)
class ProviderSide:
    """What is needed of a dialect that providers speak.

    Attributes:
        path: what a request's path becomes: of the one that the route has for whole answers.
    """

    write_request: Callable[[Conversation, set[Feature]], JsonObject]
    read_reply: Callable[[JsonObject, NewCallId], Reply]
    stream_reader: Callable[[NewCallId], StreamReader]
    path: Callable[[str, Conversation], str] = lambda path, _: path


CLIENT_SIDES: Final[Mapping[Dialect, ClientSide]] = {
    Dialect.OPENAI: ClientSide(
        chat_requests.read_request,
        chat_requests.FIELD_NAMES,
        chat_answers.write_reply,
        chat_answers.write_failure,
        chat_answers.StreamWriter,
    ),
    Dialect.ANTHROPIC: ClientSide(
        messages_requests.read_request,
        messages_requests.FIELD_NAMES,
        messages_answers.write_reply,
        messages_answers.write_failure,
        messages_answers.StreamWriter,
    ),
    Dialect.RESPONSES: ClientSide(
        responses_requests.read_request,
        responses_requests.FIELD_NAMES,
        responses_answers.write_reply,
        responses_answers.write_failure,
        responses_answers.StreamWriter,
    ),
    Dialect.GEMINI: ClientSide(
        gemini_requests.read_request,
        gemini_requests.FIELD_NAMES,
        gemini_answers.write_reply,
        gemini_answers.write_failure,
        gemini_answers.StreamWriter,
        gemini_paths.told_behind,
    ),
}

PROVIDER_SIDES: Final[Mapping[Dialect, ProviderSide]] = {
    Dialect.OPENAI: ProviderSide(
        chat_asks.write_request,
        lambda body, _: chat_replies.read_reply(body),
        lambda _: chat_replies.StreamReader(),
    ),
    Dialect.ANTHROPIC: ProviderSide(
        messages_asks.write_request,
        lambda body, _: messages_replies.read_reply(body),
        lambda _: messages_replies.StreamReader(),
    ),
    Dialect.GEMINI: ProviderSide(
        gemini_asks.write_request,
        gemini_replies.read_reply,
        gemini_replies.StreamReader,
        lambda path, said: gemini_paths.path_of(path, stream=said.stream),
    ),
}


class UntranslatableError(ValueError):
    """The request cannot be put into the provider's dialect: 400, and another provider may be asked.

    Attributes:
        body: what the client is told if there is no other, in its own dialect.
    """

    def __init__(self, body: bytes) -> None:
        super().__init__("untranslatable")
        self.body = body


@dataclass(frozen=True, slots=True)
class Request:
    """What the provider is sent.

    Attributes:
        dropped: fields that were left out, in the client's words.
    """

    path: str
    body: bytes
    dropped: tuple[str, ...]
    answer: "Answer"


def translate_request(
    body: bytes,
    path: str,
    client: Dialect,
    provider: Dialect,
    *,
    now_s: int,
    new_call_id: NewCallId,
    peculiarities: Peculiarities = NONE,
) -> Request:
    """Put a request into the provider's dialect.

    Args:
        body: as the client wrote it, but for the model, which has the provider's name for it.
        path: what the route has for the provider, and behind it what the client's dialect says in its path.
        client: the dialect it is in.
        provider: the dialect it is put into.
        now_s: seconds since 1970.
        new_call_id: names calls that the provider leaves without a name.
        peculiarities: those of a provider of chat.

    Raises:
        UntranslatableError: that cannot be done.
    """
    ours, theirs = CLIENT_SIDES[client], PROVIDER_SIDES[provider]
    lost: set[Feature] = set()
    try:
        path, told = ours.told_behind(path)
        document = parse_object(body) | told
        conversation = ours.read_request(document)
        translated = compact(peculiarities.adapted(theirs.write_request(conversation, lost), lost)).encode()
    except ShapeError as error:
        raise _untranslatable(ours, error.field, f"This request cannot be read: {error}.") from error
    except RecursionError as error:
        raise _untranslatable(ours, "", "This request is nested too deeply to be read.") from error
    except UnsupportedFieldError as error:
        raise _untranslatable(ours, error.field, _unexpressed(error.field)) from error
    except InexpressibleError as error:
        field = ours.field_names.get(error.feature, error.feature)
        raise _untranslatable(ours, field, _unexpressed(field)) from error
    dropped = sorted({*conversation.dropped, *(ours.field_names.get(each, each) for each in lost)})
    asked = Asked(document, len(body), conversation, now_s)
    return Request(
        theirs.path(path, conversation), translated, tuple(dropped), Answer(ours, theirs, asked, new_call_id)
    )


def _unexpressed(field: str) -> str:
    return f"The provider of this model has nothing like '{field}' as it is used here."


def _untranslatable(side: ClientSide, field: str, message: str) -> UntranslatableError:
    failure = Failure(400, message, "invalid_request_error", "unsupported_by_provider", field or None)
    return UntranslatableError(compact(side.write_failure(failure)).encode())


@dataclass(frozen=True, slots=True)
class Answer:
    """The way back of one attempt."""

    _client: ClientSide
    _provider: ProviderSide
    _asked: Asked
    _new_call_id: NewCallId

    def whole(self, body: bytes) -> bytes:
        """The answer of a provider that served the request.

        Raises:
            UnreadableAnswerError: it is not of the provider's dialect.
        """
        try:
            reply = self._provider.read_reply(parse_object(body), self._new_call_id)
            return compact(self._client.write_reply(reply, self._asked)).encode()
        except ShapeError as error:
            raise UnreadableAnswerError("the answer is not of the provider's dialect") from error

    def refusal(self, status: int, body: bytes) -> bytes:
        """The answer of one that did not."""
        return self.failure(read_failure(status, body))

    def failure(self, failure: Failure) -> bytes:
        """An error in the client's dialect."""
        return compact(self._client.write_failure(failure)).encode()

    def stream(self) -> "StreamedAnswer":
        """The answer as it comes."""
        return StreamedAnswer(self._provider.stream_reader(self._new_call_id), self._client.stream_writer(self._asked))


class StreamedAnswer:
    """A stream on its way back. Takes its bytes in any pieces; whatever comes, the client gets one end and nothing behind it."""

    def __init__(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._events = EventReader()
        self._reader = reader
        self._writer = writer
        self._over = False

    def feed(self, piece: bytes) -> bytes:
        """What the client is sent for a piece; often nothing."""
        if self._over:
            return b""
        try:
            return self._written(self._events.feed(piece))
        except OversizedEventError:
            return self._break_off()

    def end(self) -> bytes:
        """What it is sent at the end of what has been fed."""
        if self._over:
            return b""
        return self._written((*self._events.end(), DONE))

    def _written(self, found: Iterable[bytes]) -> bytes:
        written = []
        for data in found:
            if self._over:
                break
            if data == DONE:
                written.append(self._finish())
            else:
                written.append(self._event(data))
        return b"".join(written)

    def _event(self, data: bytes) -> bytes:
        try:
            return self._take(self._reader.read(parse_object(data)))
        except ShapeError:
            return self._break_off()

    def _finish(self) -> bytes:
        try:
            written = self._take(self._reader.end())
        except ShapeError:
            return self._break_off()
        return written if self._over else written + self._break_off()

    def _take(self, events: Iterable[Event]) -> bytes:
        written = b""
        for event in events:
            written += self._writer.write(event)
            if isinstance(event, Ended | Failed):
                self._over = True
                break
        return written

    def _break_off(self) -> bytes:
        self._over = True
        return self._writer.write(Failed(broken_stream()))
