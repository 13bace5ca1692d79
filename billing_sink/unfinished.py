"""What a session has delivered that no usage of the provider's tells of, and the tokens that comes to. Pure.

The rule, in the provider's own measure of sound (OpenAI's guide "Managing costs" of the Realtime API: a token for each 100 ms that it hears and for each
50 ms that it says; formats as its API reference has them: PCM of 16 bits at 24 kHz, or G.711, a byte 8,000 times a second; both in base64):

- Output: a token for each piece of text, and for each 50 ms of sound that has come.
- Input, once for all that had begun: a token per 4 bytes of the events that the client has sent since the last usage, per 256 bytes of pictures, and
  for each 100 ms of sound.
- For each response that had begun: what the last one that has ended read and wrote, as cached input, since it is read again.
- Of transcriptions: a token of output for each piece, and of input for each 100 ms of sound that the client has sent since the last one.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Final

from pydantic import Field

from gateway_core.usage import BYTES_PER_TOKEN, Meter

Count = Annotated[int, Field(ge=0, le=2**53)]

IMAGE_BYTES_PER_TOKEN: Final = 256
"""Of pictures in base64; those seen have more."""
_BASE64: Final = Fraction(4, 3)
_PCM_BYTES_PER_SECOND: Final = 48_000 * _BASE64
_TELEPHONE_BYTES_PER_SECOND: Final = 8_000 * _BASE64
_HEARD_TOKENS_PER_SECOND: Final = 10
_SAID_TOKENS_PER_SECOND: Final = 20


@dataclass(frozen=True, slots=True)
class Unfinished:
    """See `gateway_core.contract.UnfinishedField`."""

    responses: Count = 0
    pieces: Count = 0
    audio_bytes: Count = 0
    context_tokens: Count = 0
    text_bytes_sent: Count = 0
    image_bytes_sent: Count = 0
    audio_bytes_sent: Count = 0
    transcription_pieces: Count = 0
    audio_bytes_heard: Count = 0
    is_telephone: bool = False

    @property
    def tokens(self) -> dict[Meter, int]:
        """What it is charged as; without meters of which there is nothing."""
        counts = dict.fromkeys(
            (Meter.INPUT, Meter.CACHED_INPUT, Meter.AUDIO_INPUT, Meter.OUTPUT, Meter.AUDIO_OUTPUT), 0
        )
        # A piece may come of one that nobody has heard the beginning of.
        begun = max(self.responses, 1 if self.pieces or self.audio_bytes else 0)
        if begun:
            counts[Meter.INPUT] = -(-self.text_bytes_sent // BYTES_PER_TOKEN) - (
                -self.image_bytes_sent // IMAGE_BYTES_PER_TOKEN
            )
            counts[Meter.CACHED_INPUT] = begun * self.context_tokens
            counts[Meter.AUDIO_INPUT] = self._sound(self.audio_bytes_sent, _HEARD_TOKENS_PER_SECOND)
            counts[Meter.OUTPUT] = self.pieces
            counts[Meter.AUDIO_OUTPUT] = self._sound(self.audio_bytes, _SAID_TOKENS_PER_SECOND)
        if self.transcription_pieces:
            counts[Meter.OUTPUT] += self.transcription_pieces
            counts[Meter.AUDIO_INPUT] += self._sound(self.audio_bytes_heard, _HEARD_TOKENS_PER_SECOND)
        return {meter: count for meter, count in counts.items() if count}

    def _sound(self, length: int, tokens_per_second: int) -> int:
        """Tokens that have begun."""
        bytes_per_second = _TELEPHONE_BYTES_PER_SECOND if self.is_telephone else _PCM_BYTES_PER_SECOND
        return -(-length * tokens_per_second // bytes_per_second)
