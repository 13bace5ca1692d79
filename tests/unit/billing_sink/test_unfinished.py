"""What a session is charged for what it delivered and nobody counted."""

import pytest

from billing_sink.unfinished import Unfinished
from gateway_core.usage import Meter

SECOND, TELEPHONE_SECOND = 64_000, 32_000 // 3


@pytest.mark.parametrize(
    ("unfinished", "tokens"),
    [
        (Unfinished(), {}),
        (Unfinished(responses=1, pieces=3), {Meter.OUTPUT: 3}),
        (Unfinished(responses=1, text_bytes_sent=401), {Meter.INPUT: 101}),
        (Unfinished(responses=1, audio_bytes=10 * SECOND), {Meter.AUDIO_OUTPUT: 200}),
        (Unfinished(responses=1, audio_bytes=1), {Meter.AUDIO_OUTPUT: 1}),
        (Unfinished(responses=1, audio_bytes_sent=10 * SECOND), {Meter.AUDIO_INPUT: 100}),
        (Unfinished(responses=1, audio_bytes=3 * TELEPHONE_SECOND, is_telephone=True), {Meter.AUDIO_OUTPUT: 60}),
        (Unfinished(responses=1, audio_bytes_sent=TELEPHONE_SECOND, is_telephone=True), {Meter.AUDIO_INPUT: 10}),
        (Unfinished(responses=1, image_bytes_sent=2560), {Meter.INPUT: 10}),
        # Each of two reads again what was said before.
        (Unfinished(responses=2, context_tokens=500), {Meter.CACHED_INPUT: 1000}),
        # Pieces of which the beginning was not heard are of one response.
        (Unfinished(pieces=1, context_tokens=500), {Meter.CACHED_INPUT: 500, Meter.OUTPUT: 1}),
        # What was sent is read by a response, and if there is none by nobody.
        (Unfinished(text_bytes_sent=400, audio_bytes_sent=SECOND, context_tokens=500), {}),
        (
            Unfinished(transcription_pieces=4, audio_bytes_heard=SECOND, audio_bytes_sent=SECOND),
            {Meter.AUDIO_INPUT: 10, Meter.OUTPUT: 4},
        ),
        (
            Unfinished(
                responses=1,
                pieces=2,
                transcription_pieces=4,
                audio_bytes_heard=SECOND,
                audio_bytes_sent=SECOND,
            ),
            {Meter.AUDIO_INPUT: 20, Meter.OUTPUT: 6},
        ),
    ],
)
def test_what_has_come_and_what_was_read_for_it_are_tokens_of_their_kinds(
    unfinished: Unfinished, tokens: dict[Meter, int]
) -> None:
    assert unfinished.tokens == tokens
