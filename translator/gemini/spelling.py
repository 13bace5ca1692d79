"""One spelling of fields: Google's servers take `system_instruction` for `systemInstruction`. Pure.

Source: the JSON mapping of protocol buffers, which Google's APIs follow: readers take the name in lower camel case and the original one.
"""

from typing import Final

from translator.json_values import Json, JsonObject

_CLIENTS_OWN: Final = frozenset(
    {"args", "response", "parameters", "parametersJsonSchema", "responseSchema", "responseJsonSchema"}
)
"""Fields whose contents are the client's and not Google's."""


def in_camel_case(body: JsonObject) -> JsonObject:
    """The same body with the names of Google's fields spelled as its reference has them."""
    spelled = ((_camel(name), value) for name, value in body.items())
    return {name: value if name in _CLIENTS_OWN else _inner(value) for name, value in spelled}


def _inner(value: Json) -> Json:
    if isinstance(value, dict):
        return in_camel_case(value)
    return [_inner(each) for each in value] if isinstance(value, list) else value


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word[:1].upper() + word[1:] for word in rest)
