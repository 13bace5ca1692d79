"""Forms (multipart/form-data) as the endpoints for sound and pictures take them. Pure.

Not strict: the boundary is the first line of the body, and what stands between two of them is taken for a part.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from simulator.refusal import RefusalError

_NAME: Final = re.compile(rb'[ ;]name="([^"]+)"')
_FILENAME: Final = re.compile(rb'filename="([^"]*)"')


@dataclass(frozen=True, slots=True)
class Form:
    """What a form brings.

    Attributes:
        texts: the fields that are no files; of one that comes several times, the last.
        files: their bytes, by the names of their fields.
        filenames: what their names are, likewise.
    """

    texts: Mapping[str, str]
    files: Mapping[str, bytes]
    filenames: Mapping[str, str]


def parse_form(body: bytes) -> Form:
    """Read a body.

    Raises:
        RefusalError: it is no form.
    """
    boundary, _, _ = body.partition(b"\r\n")
    if not boundary.startswith(b"--"):
        raise RefusalError(400, "Could not parse multipart form")
    texts, files, filenames = dict[str, str](), dict[str, bytes](), dict[str, str]()
    for part in (b"\r\n" + body).split(b"\r\n" + boundary)[1:-1]:
        headers, _, content = part.partition(b"\r\n\r\n")
        name = _NAME.search(headers)
        if name is None:
            raise RefusalError(400, "Could not parse multipart form")
        if filename := _FILENAME.search(headers):
            files[name[1].decode()] = content
            filenames[name[1].decode()] = filename[1].decode(errors="replace")
        else:
            texts[name[1].decode()] = content.decode(errors="replace")
    return Form(texts, files, filenames)
