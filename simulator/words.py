"""What the simulator says, and how it counts tokens. Pure: the same seed gives the same words.

The rules of counting, chosen to be checked by hand and not to match any vendor's tokenizer:
what is received costs one token per four bytes of UTF-8, rounded up per message, plus four tokens per message and 85 per
image, sound or file; of what is said, every word of prose is one token, and every four characters of JSON are one.
"""

import hashlib
from collections.abc import Iterable
from itertools import chain
from typing import Final

BYTES_PER_TOKEN: Final = 4
MESSAGE_TOKENS: Final = 4
ATTACHMENT_TOKENS: Final = 85

# One row per place in a sentence, eight words each: three bits of a digest choose one.
_SENTENCE: Final = (
    ("Every", "The", "One", "Another", "Some", "That", "This", "Our"),
    (" patient", " curious", " quiet", " bright", " gentle", " clever", " cheerful", " careful"),
    (" lighthouse", " gardener", " river", " librarian", " compass", " sparrow", " painter", " clock"),
    (" hums", " waits", " listens", " wanders", " dreams", " sings", " rests", " smiles"),
    (" softly", " often", " gladly", " again", " today", " calmly", " freely", " twice"),
    (" beside", " beyond", " above", " behind", " near", " under", " along", " before"),
    (" the", " a", " our", " that", " some", " another", " this", " every"),
    (" silver", " sleepy", " distant", " golden", " hidden", " mossy", " sunlit", " winding"),
    (" harbour.", " orchard.", " meadow.", " market.", " bridge.", " valley.", " garden.", " window."),
)


def fingerprint(parts: Iterable[str | bytes]) -> str:
    """64 hex digits that stand for the parts, in this order and with these borders."""
    digest = hashlib.blake2b(digest_size=32)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8))
        digest.update(data)
    return digest.hexdigest()


def count_tokens(text: str) -> int:
    """Tokens of a received text, without what its message costs on top."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def prose(seed: str, tokens: int | None) -> tuple[str, ...]:
    """A text in pieces of one token each.

    Args:
        seed: a fingerprint; chooses the words.
        tokens: how many pieces; None for two to five whole sentences, as the seed decides.
    """
    if tokens == 0:
        return ()
    sentences = 2 + int(seed[0], 16) % 4 if tokens is None else -(-tokens // len(_SENTENCE))
    pieces = [*chain.from_iterable(_sentence(seed, number) for number in range(sentences))][:tokens]
    pieces[0] = pieces[0].lstrip()
    pieces[-1] = pieces[-1].rstrip(".") + "."
    return tuple(pieces)


def json_pieces(text: str) -> tuple[str, ...]:
    """JSON text, all ASCII, in pieces of one token each."""
    return tuple(text[start : start + BYTES_PER_TOKEN] for start in range(0, len(text), BYTES_PER_TOKEN))


def cut_at(pieces: tuple[str, ...], stops: Iterable[str]) -> tuple[tuple[str, ...], str | None]:
    """Pieces up to where the first of the stop sequences would begin, and which one that was."""
    text = "".join(pieces)
    found = min(((at, stop) for stop in stops if stop and (at := text.find(stop)) >= 0), default=None)
    if found is None:
        return pieces, None
    room, stop = found
    kept = []
    for piece in pieces:
        if room <= 0:
            break
        kept.append(piece[:room])
        room -= len(piece)
    return tuple(kept), stop


def _sentence(seed: str, number: int) -> list[str]:
    digest = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=len(_SENTENCE)).digest()
    words = [row[byte & 7] for row, byte in zip(_SENTENCE, digest, strict=True)]
    words[0] = " " + words[0]
    return words
