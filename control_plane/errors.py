"""Why a call to the API is refused, as types. One table, in `api/problems.py`, says which status each one is. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway_core.errors import ApiError


@dataclass(frozen=True, slots=True)
class InvalidField:
    """One offending field.

    Attributes:
        pointer: where it stands, as a JSON pointer (RFC 6901) into the body; `?name` for a query parameter.
        detail: what is wrong with it. Never quotes the value, which may be a secret.
    """

    pointer: str
    detail: str


def pointer(steps: Sequence[str | int]) -> str:
    """A JSON pointer from its steps."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in steps)


class RefusedError(Exception):
    """A call that is refused; the detail is for the caller to read."""

    def __init__(self, detail: str, fields: Sequence[InvalidField] = ()) -> None:
        super().__init__(detail)
        self.detail = detail
        self.fields = tuple(fields)


class MalformedBodyError(RefusedError):
    """The body is not JSON as we read it; there are no fields to point at."""


class UnsupportedMediaTypeError(RefusedError):
    """The body is not declared as JSON."""


class InvalidFieldsError(RefusedError):
    """The body or query is readable, but these fields do not hold what they must."""

    def __init__(self, *fields: InvalidField) -> None:
        super().__init__("Some fields are not valid.", fields)


class BodyTooSlowError(RefusedError):
    """The body does not arrive."""

    def __init__(self) -> None:
        super().__init__("The body was not complete in time. Send it without a pause.")


class UnauthenticatedError(RefusedError):
    """No credential, or none that is valid."""

    def __init__(self, detail: str = "No valid credential was given. Send it as 'Authorization: Bearer ...'.") -> None:
        super().__init__(detail)


class ForbiddenError(RefusedError):
    """The caller is known and may see the thing, but not do this with it."""


class NotFoundError(RefusedError):
    """There is no such thing, or none that the caller may know of."""

    def __init__(self, detail: str = "There is nothing here, or nothing that you may see.") -> None:
        super().__init__(detail)


class ConflictError(RefusedError):
    """It contradicts what is there already."""


class ClosedOrganizationError(RefusedError):
    """Nothing can be changed in the organisation any more, but by an operator."""

    def __init__(self) -> None:
        super().__init__("The organisation is closed. Ask the operator of this installation.")


class InsufficientBalanceError(RefusedError):
    """There is less to take back than that: the rest is spent, or held by running requests."""

    def __init__(self) -> None:
        super().__init__(
            "The balance has less available than is to be taken back. Nothing was taken.",
            [InvalidField("/amount", "more than is available")],
        )


class UnknownModelError(Exception):
    """No such model, or none that the key may use. Only for `/v1`, whose errors have no fields."""

    def __init__(self, model: str) -> None:
        super().__init__("no such model")
        self.model = model


class ApiRefusedError(Exception):
    """A refusal in words of its own. Only for `/v1`."""

    def __init__(self, error: ApiError) -> None:
        super().__init__(error.code)
        self.error = error


class NoTestModeError(RefusedError):
    """There are no test keys, because this installation has no simulator to answer them."""

    def __init__(self, fields: Sequence[InvalidField] = ()) -> None:
        super().__init__("This gateway has no simulator, so it has no test keys.", fields)


class NoPaymentsError(RefusedError):
    """Nothing can be paid, because this installation has no account at Stripe."""

    def __init__(self) -> None:
        super().__init__("This installation takes no payments. Ask its operator for credit.")


class VoucherRefusedError(RefusedError):
    """A code that gives nothing, or nothing any more."""

    def __init__(self, why: str) -> None:
        super().__init__("This voucher cannot be redeemed.", [InvalidField("/code", why)])


class GatewayUnavailableError(RefusedError):
    """The gateway cannot be reached from here."""

    def __init__(self) -> None:
        super().__init__("The gateway cannot be reached. Try again in a moment.")


class PaymentsUnavailableError(RefusedError):
    """Stripe does not answer, or not as we need it."""

    def __init__(self) -> None:
        super().__init__("The payment cannot be begun now. Try again later.")


class StaleRevisionError(RefusedError):
    """`If-Match` names a revision that is no longer the current one."""

    def __init__(self) -> None:
        super().__init__("It has changed since you read it. Read it again, then repeat the change with its new ETag.")


class RevisionRequiredError(RefusedError):
    """A change that has to say with `If-Match` which revision it is meant for."""

    def __init__(self) -> None:
        super().__init__("Send 'If-Match' with the ETag of what you have read.")


class IdempotencyMismatchError(RefusedError):
    """The same `Idempotency-Key` came with another request."""

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used for another request in the last 24 hours.")


class ThrottledError(RefusedError):
    """Too many attempts.

    Attributes:
        retry_after_s: when the next one is worth making.
    """

    def __init__(self, retry_after_s: int) -> None:
        super().__init__("Too many attempts. Wait a while.")
        self.retry_after_s = retry_after_s


class StolenSessionError(RefusedError):
    """A refresh token came a second time: whoever has it, the session is over."""


class IssuerUnavailableError(RefusedError):
    """The issuer that somebody logs in at does not answer, or not as an issuer does."""

    def __init__(self) -> None:
        super().__init__(
            "The issuer cannot be reached, or its answer cannot be read. Try again, or log in another way."
        )


class AnalyticsUnavailableError(RefusedError):
    """ClickHouse does not answer."""

    def __init__(self) -> None:
        super().__init__("What requests came to cannot be counted now. Everything else goes on; try again.")


class CachedAnswersUnavailableError(RefusedError):
    """Redis does not answer, or there is none: whether answers are cached cannot be said."""

    def __init__(self) -> None:
        super().__init__("Kept answers cannot be reached now. Try again later.")
