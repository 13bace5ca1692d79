"""Envoy's question as a value. The edge: behind it there is no protobuf any more."""

from ext_authz.asked import Asked
from ext_authz.leases import parse_unspent
from gateway_core.api_keys import credential_of
from gateway_core.contract import Header, Metadata, RequestField
from gateway_core.endpoints import FACTS, Endpoint
from gateway_core.ids import ModelName, ProviderName, RequestId
from gateway_core.kept import InvalidKeptNameError, KeptName
from gateway_core.mode import Mode
from gateway_core.offering import InvalidOfferingError, Offering
from gateway_core.usage import InvalidTierError, Meter, ServiceTier, asked_service_tier
from wire.ext_authz_pb2 import CheckRequest


class MalformedCheckError(ValueError):
    """A question the front filter does not ask; the request is refused."""


def parse_check(request: CheckRequest) -> Asked:
    """Read a CheckRequest.

    Raises:
        MalformedCheckError: no request id, nothing from the front filter, or no model or number where one is charged for.
    """
    headers = request.attributes.request.http.headers
    metadata = request.attributes.metadata_context.filter_metadata
    if Metadata.NAMESPACE not in metadata or not headers.get(Header.REQUEST_ID):
        raise MalformedCheckError("the front filter has not seen this request")
    fields = metadata[Metadata.NAMESPACE].fields[Metadata.REQUEST].struct_value.fields
    endpoint = _endpoint(fields[RequestField.ENDPOINT].string_value)
    model = fields[RequestField.MODEL].string_value
    if not model and FACTS[endpoint].is_of_a_model:
        raise MalformedCheckError("a request without a model")
    if FACTS[endpoint].names is not None and not fields[RequestField.NAMED].string_value:
        raise MalformedCheckError("a request that does not say what it is about")
    if FACTS[endpoint].asked is not None and not fields[RequestField.UNITS].HasField("number_value"):
        raise MalformedCheckError("a request that does not say how much it asks for")
    if FACTS[endpoint].is_form and not fields[RequestField.FILE_BYTES].HasField("number_value"):
        raise MalformedCheckError("a form that does not say how much of it is files")
    return Asked(
        request_id=RequestId(headers[Header.REQUEST_ID]),
        address=headers.get(Header.CLIENT_ADDRESS) or request.attributes.source.address.socket_address.address,
        credential=credential_of(headers),
        mode=_mode(fields[RequestField.MODE].string_value),
        endpoint=endpoint,
        model=ModelName(model) if model else None,
        body_bytes=int(fields[RequestField.BODY_BYTES].number_value),
        has_references=fields[RequestField.REFERENCES].bool_value,
        max_output_tokens=(
            int(fields[RequestField.MAX_OUTPUT_TOKENS].number_value)
            if fields[RequestField.MAX_OUTPUT_TOKENS].HasField("number_value")
            else None
        ),
        choices=max(1, int(fields[RequestField.CHOICES].number_value)),
        files=int(fields[RequestField.FILES].number_value),
        file_bytes=int(fields[RequestField.FILE_BYTES].number_value),
        units=int(fields[RequestField.UNITS].number_value),
        query_bytes=int(fields[RequestField.QUERY_BYTES].number_value),
        is_stream=fields[RequestField.STREAM].bool_value,
        least_output_tokens=int(fields[RequestField.LEAST_OUTPUT_TOKENS].number_value),
        service_tier=_service_tier(fields[RequestField.SERVICE_TIER].string_value),
        may_search=fields[RequestField.WEB_SEARCH].bool_value,
        meters=_meters(fields[RequestField.METERS].string_value),
        offering=_offering(fields[RequestField.OFFERING].string_value),
        named=_named(fields[RequestField.NAMED].string_value),
        provider=ProviderName(fields[RequestField.PROVIDER].string_value) or None,
        is_lease_wanted=fields[RequestField.LEASE_WANTED].bool_value,
        unspent=parse_unspent(fields[RequestField.UNSPENT].string_value),
        own_keys_as_of=(
            int(fields[RequestField.OWN_KEYS_AS_OF].number_value)
            if fields[RequestField.OWN_KEYS_AS_OF].HasField("number_value")
            else None
        ),
    )


def _endpoint(text: str) -> Endpoint:
    try:
        return Endpoint(text)
    except ValueError as error:
        raise MalformedCheckError("unknown endpoint") from error


def _mode(text: str) -> Mode:
    try:
        # A front filter from before there were test keys says nothing and has no routes for them.
        return Mode(text or Mode.LIVE)
    except ValueError as error:
        raise MalformedCheckError("unknown mode") from error


def _offering(text: str) -> Offering | None:
    try:
        return Offering.parse(text) if text else None
    except InvalidOfferingError as error:
        raise MalformedCheckError("a route that says nothing of what it stands for") from error


def _named(text: str) -> tuple[KeptName, ...]:
    try:
        return tuple(map(KeptName.parse, text.split(","))) if text else ()
    except InvalidKeptNameError as error:
        raise MalformedCheckError("a name of nothing that is kept") from error


def _meters(text: str) -> frozenset[Meter]:
    try:
        return frozenset(map(Meter, text.split(","))) if text else frozenset()
    except ValueError as error:
        raise MalformedCheckError("a meter that is not known") from error


def _service_tier(text: str) -> ServiceTier | None:
    try:
        return asked_service_tier(text)
    except InvalidTierError as error:
        raise MalformedCheckError("a service tier that is not a word") from error
