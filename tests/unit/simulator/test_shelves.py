"""What is kept, is kept for one credential, and not without bounds."""

from datetime import UTC, datetime

import pytest

from simulator.chat import Stamp, without_directives
from simulator.compose import compose
from simulator.knobs import Knobs
from simulator.openai_responses import OpenAiResponses
from simulator.refusal import RefusalError
from simulator.shelves import BYTES_MAX, OBJECTS_MAX, KeptFile, Shelf, Shelves

STAMP = Stamp("0" * 64, datetime(2026, 1, 1, tzinfo=UTC))


def shelves() -> Shelves:
    numbers = iter(range(10**6))
    return Shelves(lambda length: next(numbers).to_bytes(length))


def answered(shelf: Shelf, body: bytes) -> dict[str, object]:
    dialect = OpenAiResponses(shelf)
    request, _ = without_directives(dialect.parse(body))
    return dialect.unary(compose(request, Knobs(), None, STAMP))


def test_a_file_is_found_with_the_credential_it_was_sent_with_and_with_no_other() -> None:
    kept = shelves()
    kept.of("a").put("file-1", KeptFile({"id": "file-1"}, b"content"))
    assert kept.of("a").file("file-1").content == b"content"
    assert (kept.files("a"), kept.files("b")) == ([KeptFile({"id": "file-1"}, b"content")], [])
    with pytest.raises(RefusalError, match="No such File object"):
        kept.of("b").file("file-1")
    with pytest.raises(RefusalError, match="not found"):
        kept.of("a").response("file-1")


def test_what_was_kept_first_is_forgotten_first() -> None:
    kept = shelves()
    for number in range(OBJECTS_MAX + 1):
        kept.of("a").put(f"file-{number}", KeptFile({}, b""))
    with pytest.raises(RefusalError):
        kept.of("a").file("file-0")
    assert kept.of("a").file("file-1").content == b""
    kept.of("b").put("file-b", KeptFile({}, bytes(BYTES_MAX)))
    kept.of("b").put("file-c", KeptFile({}, b"c"))
    assert kept.files("a") == []
    assert [len(file.content) for file in kept.files("b")] == [1]


def test_a_response_is_continued_and_its_id_is_like_no_others() -> None:
    shelf = shelves().of("a")
    first, again = (answered(shelf, b'{"model":"m","input":"Hi","store":true}') for _ in range(2))
    assert first["id"] != again["id"]
    assert first["output"] == again["output"]
    body = b'{"model":"m","input":"More","previous_response_id":"%s"}' % str(first["id"]).encode()
    alone, continued = answered(shelf, b'{"model":"m","input":"More"}'), answered(shelf, body)
    assert continued["usage"]["input_tokens"] > alone["usage"]["input_tokens"]  # type: ignore[index]
    with pytest.raises(RefusalError, match="not found"):
        shelf.response(str(continued["id"]))
    with pytest.raises(RefusalError, match="not found") as refused:
        answered(shelf, b'{"model":"m","input":"More","previous_response_id":"resp_none"}')
    assert refused.value.param == "previous_response_id"
