"""The error body clients get, in OpenAI's form, and the codes in it.

Every refusal of ours, whichever process words it, has this shape: `{"error": {message, type, param, code}}`.
"""

import json
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ApiError:
    """One refusal: an HTTP status and what the caller is told. The message is for people and never quotes a secret."""

    status: int
    code: str
    message: str
    type: str = "invalid_request_error"
    param: str | None = None

    def body(self) -> str:
        """The JSON text."""
        return json.dumps(
            {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}
        )


INVALID_API_KEY: Final = ApiError(
    401, "invalid_api_key", "No valid API key was given. Send it as 'Authorization: Bearer sk-tg-...'."
)
ROUTE_NOT_FOUND: Final = ApiError(404, "not_found", "Unknown path or method.")


def model_not_found(model: str) -> ApiError:
    """No such model, or none that this organisation can see."""
    return ApiError(404, "model_not_found", f"The model '{model}' does not exist.", param="model")
