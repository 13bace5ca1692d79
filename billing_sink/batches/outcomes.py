"""What the lines of a batch have come to: each answered one is a line as the spool would have had it, and is rated like any other. Pure."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from billing_sink.access_log import FINISHED, InvalidLineError, parse_line
from billing_sink.batches.admission import AdmittedLine
from billing_sink.batches.model import Batch, JsonObject, RememberedLine, parse_said
from billing_sink.postings import Posting, Quarantined, conflict, hash_of
from billing_sink.prices import PriceBook
from billing_sink.rating import UNRATEABLE, rate
from billing_sink.spool import RawLine
from gateway_core.clusters import Cluster, provider_cluster
from gateway_core.contract import GrantField, RequestField
from gateway_core.endpoints import Endpoint
from gateway_core.ids import PriceVersion, RequestId
from gateway_core.mode import Mode
from gateway_core.spool_fields import SPOOL_VERSION, SpoolField
from gateway_core.usage import BATCH

_ERROR_CODE_LENGTH_MAX: Final = 100
STRAY_BYTES_MAX: Final = 65_536
"""As much is kept of a line that nobody can read."""


@dataclass(frozen=True, slots=True)
class AnsweredLine:
    """A line of an output or an error file.

    Attributes:
        status: what the provider answered; 0 if it did not.
        usage: its usage object as JSON text.
        body_bytes: about how long the answer is; 0 if there is none.
        error_code: why there is none.
    """

    custom_id: str
    status: int
    usage: str | None
    body_bytes: int
    error_code: str | None


def parse_answer(line: bytes) -> AnsweredLine | None:
    """Read a line of a file of answers; None if it is none."""
    found = parse_said(line) or {}
    custom_id, response, error = found.get("custom_id"), _object(found.get("response")), _object(found.get("error"))
    status, body, code = response.get("status_code", 0), response.get("body"), error.get("code")
    if not isinstance(custom_id, str) or not isinstance(status, int):
        return None
    usage = _object(body).get("usage")
    return AnsweredLine(
        custom_id,
        status,
        json.dumps(usage) if isinstance(usage, dict) else None,
        len(line) if body is not None else 0,
        code[:_ERROR_CODE_LENGTH_MAX] if isinstance(code, str) and code else None,
    )


def _object(value: object) -> JsonObject:
    return value if isinstance(value, dict) else {}


def remembered(number: int, admitted: AdmittedLine, batch: Batch, version: PriceVersion) -> RememberedLine:
    """What has to be known of a line once it is answered; by its place, counted from 1, it is told from the others."""
    line, sold = admitted.line, admitted.sold
    asked = {
        RequestField.ENDPOINT: batch.endpoint,
        RequestField.MODEL: line.model,
        RequestField.BODY_BYTES: line.body_bytes,
        RequestField.MAX_OUTPUT_TOKENS: line.max_output_tokens,
        RequestField.CHOICES: line.choices,
        RequestField.UNITS: line.units,
        RequestField.REFERENCES: line.has_references,
        RequestField.SERVICE_TIER: BATCH,
        RequestField.CLIENT_REQUEST_ID: line.custom_id,
        RequestField.OFFERING: str(admitted.offering),
        RequestField.MODE: batch.mode,
    }
    grant = {
        GrantField.ORG_ID: batch.org_id,
        GrantField.PROJECT_ID: batch.project_id,
        GrantField.KEY_ID: batch.key_id,
        GrantField.MODE: batch.mode,
        GrantField.MODEL: sold.model,
        GrantField.PRICE_VERSION: version,
        GrantField.HOLD_NANO_USD: admitted.amount,
        GrantField.TOKENS_MAX: admitted.tokens_max,
        GrantField.INPUT_TOKENS_MAX: admitted.input_tokens_max,
        GrantField.RATED_AS: sold.provider if batch.mode is Mode.TEST else None,
    }
    told = json.dumps({SpoolField.REQUEST: asked, SpoolField.GRANT: grant})
    return RememberedLine(line.custom_id, RequestId(f"{batch.batch_id}-{number}"), admitted.amount, told)


def rate_answers(
    batch: Batch,
    answers: Iterable[tuple[int, bytes, AnsweredLine | None]],
    remembered: Mapping[str, RememberedLine],
    prices: PriceBook,
) -> tuple[Sequence[Posting], Sequence[Quarantined]]:
    """What is posted of some lines, each with its place in the files, and what a person has to look at. A request id occurs once."""
    postings: dict[RequestId, Posting] = {}
    quarantined: list[Quarantined] = []
    for place, content, answer in answers:
        line = None if answer is None else remembered.get(answer.custom_id)
        if answer is None or line is None:
            quarantined.append(
                Quarantined(RawLine(place, content[:STRAY_BYTES_MAX]), "an answer to no line of its batch")
            )
            continue
        found = posting_of(batch, place, line, answer, prices)
        if isinstance(found, Quarantined):
            quarantined.append(found)
        elif postings.setdefault(found.request_id, found).input_hash != found.input_hash:
            quarantined.append(conflict(found))
    return tuple(postings.values()), tuple(quarantined)


def posting_of(
    batch: Batch, place: int, line: RememberedLine, answer: AnsweredLine, prices: PriceBook
) -> Posting | Quarantined:
    """A line with its answer, rated at the batch tier whatever the answer says of that."""
    told = json.loads(line.told)
    if answer.error_code is not None:
        told[SpoolField.REQUEST][RequestField.ERROR_CODE] = answer.error_code
    return _rated(
        place,
        line.request_id,
        {
            **_beginning(batch, line.request_id),
            **told,
            SpoolField.STATUS: answer.status,
            SpoolField.CLUSTER: Cluster.SIMULATOR if batch.provider is None else provider_cluster(batch.provider),
            # None of Envoy's: what a batch is answered says nothing of who answers requests.
            SpoolField.ATTEMPTS: 0,
            SpoolField.BYTES_SENT: answer.body_bytes,
            SpoolField.USAGE_FIRST: answer.usage,
            SpoolField.SERVICE_TIER: BATCH,
        },
        prices,
    )


def end_of(batch: Batch) -> Posting:
    """The batch itself as a request that costs nothing, which ends what is still held for it."""
    asked = {RequestField.ENDPOINT: Endpoint.BATCH, RequestField.MODE: batch.mode}
    grant = {
        GrantField.ORG_ID: batch.org_id,
        GrantField.PROJECT_ID: batch.project_id,
        GrantField.KEY_ID: batch.key_id,
        GrantField.MODE: batch.mode,
    }
    fields = {
        **_beginning(batch, batch.request_id),
        SpoolField.REQUEST: asked,
        SpoolField.GRANT: grant,
        SpoolField.STATUS: 200,
    }
    found = _rated(0, batch.request_id, fields, PriceBook.of(PriceVersion(0), ()))
    assert isinstance(found, Posting)  # noqa: S101 - without a model nothing is rated
    return found


def _beginning(batch: Batch, request_id: RequestId) -> dict[str, object]:
    """The same whenever it is said: so is the hash of the line."""
    return {
        SpoolField.VERSION: SPOOL_VERSION,
        SpoolField.TYPE: FINISHED,
        SpoolField.REQUEST_ID: request_id,
        SpoolField.START_TIME: batch.created_at.isoformat(),
    }


def _rated(place: int, request_id: RequestId, fields: dict[str, object], prices: PriceBook) -> Posting | Quarantined:
    raw = RawLine(place, json.dumps(fields).encode())
    try:
        line = parse_line(raw.content)
    except InvalidLineError as error:
        return Quarantined(raw, str(error), request_id)
    try:
        rated = rate(line, prices)
    except UNRATEABLE as error:
        return Quarantined(raw, f"{type(error).__name__}: {error}", request_id, line)
    return Posting(request_id, hash_of(raw), raw, rated)
