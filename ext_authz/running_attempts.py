"""What Envoy's access logs say of attempts at providers that may be full. Pure.

That one is over, the listener inside Envoy says that it passes; what it used, only the request that was answered by it.
"""

from typing import Final

from ext_authz.attempts import AttemptOver, AttemptRunning, TokensUsed
from ext_authz.used_tokens import text, used_tokens
from gateway_core.clusters import is_own_key_cluster, provider_of_cluster
from gateway_core.contract import AttemptCount, GrantField, Metadata
from gateway_core.ids import ProviderName
from wire.access_log_pb2 import AccessLogType, HTTPAccessLogEntry

_OK: Final = 200
_NOT_OK: Final = 300


def parse_attempt_entry(entry: HTTPAccessLogEntry) -> AttemptRunning | AttemptOver | None:
    """An entry about an attempt; None if it is about something else."""
    common = entry.common_properties
    counted = common.metadata.filter_metadata[Metadata.ATTEMPT_NAMESPACE].fields
    provider, attempt_id = text(counted, AttemptCount.PROVIDER), text(counted, AttemptCount.ATTEMPT_ID)
    envoy, tokens = text(counted, AttemptCount.ENVOY), text(counted, AttemptCount.TOKENS)
    if not (provider and attempt_id and tokens.isdecimal()):
        return None
    if common.access_log_type == AccessLogType.DOWNSTREAM_PERIODIC:
        return AttemptRunning(ProviderName(provider), envoy, attempt_id)
    return AttemptOver(
        ProviderName(provider),
        envoy,
        attempt_id,
        # As many ran as may at once, so it was not sent.
        requests_back=int(common.response_flags.upstream_overflow),
        tokens_back=0 if _OK <= entry.response.response_code.value < _NOT_OK else int(tokens),
    )


def parse_use(entry: HTTPAccessLogEntry) -> TokensUsed | None:
    """What a request used beyond what was expected of it; None where that counts at no provider, or it is not over."""
    common = entry.common_properties
    metadata = common.metadata.filter_metadata
    told = metadata[Metadata.NAMESPACE]
    grant = (
        told.fields[Metadata.LEASE].struct_value.fields
        if Metadata.LEASE in told.fields
        else metadata[Metadata.GRANT_NAMESPACE].fields
    )
    expected = text(grant, GrantField.EXPECTED_TOKENS)
    provider = provider_of_cluster(common.upstream_cluster)
    if (
        not expected.isdecimal()
        or provider is None
        or is_own_key_cluster(common.upstream_cluster)
        or common.access_log_type == AccessLogType.DOWNSTREAM_PERIODIC
    ):
        return None
    used = used_tokens(entry, int(expected))
    return None if used is None else TokensUsed(ProviderName(provider), used - int(expected))
