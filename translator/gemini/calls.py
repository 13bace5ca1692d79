"""Names for calls in a request of Gemini's, where neither a call nor its result needs one. Pure."""

from translator.json_values import ShapeError


class Calls:
    """The calls of one conversation so far, in their order."""

    def __init__(self) -> None:
        self._made = 0
        self._open: list[tuple[str, str]] = []

    def began(self, call_id: str | None, name: str) -> str:
        """The id of a call; the same in every request that has the same calls before it."""
        self._made += 1
        found = call_id or f"call_{self._made}"
        self._open.append((found, name))
        return found

    def answered(self, call_id: str | None, name: str, at: str) -> str:
        """The id of the call that a result belongs to: without one of its own, the first of its name that has none yet.

        Raises:
            ShapeError: there is no such call.
        """
        for each in self._open:
            if each[0] == call_id or (not call_id and each[1] == name):
                self._open.remove(each)
                return each[0]
        raise ShapeError(at, "answers no call")
