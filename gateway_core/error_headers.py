"""What the answer with an error has beside its body. Pure."""

from collections.abc import Mapping

from gateway_core.contract import Header
from gateway_core.errors import ApiError


def error_headers(error: ApiError) -> Mapping[str, str]:
    """When to ask again, or that it is no use."""
    final = {Header.SHOULD_RETRY: "false"} if error.is_final else {}
    return final if error.retry_after_s is None else {**final, "retry-after": str(error.retry_after_s)}
