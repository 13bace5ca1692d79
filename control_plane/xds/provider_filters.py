"""The HTTP filters of the clusters that lead to providers, in order, with the reason for each place; they run once per attempt.

Filters fail open unless told otherwise; each one here is told.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from ipaddress import IPv6Network
from typing import Final

from control_plane.catalog.addresses import ASSIGNED_V6, Network, refused_networks
from control_plane.catalog.aws_keys import AwsKey
from control_plane.catalog.kinds import KindTemplate
from control_plane.catalog.model import Provider
from control_plane.xds.http_filter import SKIP, header_mutation, http_filter, overwritten
from control_plane.xds.lua import lua_config, upstream_filter
from control_plane.xds.protobuf import Json, JsonObject, typed
from control_plane.xds.secrets import credential_secret
from gateway_core.clusters import Cluster, capped_cluster, own_key_cluster, provider_cluster, translated_cluster
from gateway_core.contract import CREDENTIAL_HEADERS, GrantField, Header, Metadata
from gateway_core.endpoints import Dialect
from gateway_core.ids import OrgId
from gateway_core.provider_limits import packed_headers
from gateway_core.providers import Translation

_ADDRESSES: Final = "envoy.filters.http.upstream_rbac"
"""Of the filter that judges addresses; Envoy finds it by its name."""

_CLIENT_HEADERS: Final = ("forwarded", "via", "x-real-ip", "true-client-ip", "cf-connecting-ip")
"""Headers that tell a provider who the client is; `x-forwarded-*` besides."""

_ACCOUNT_HEADERS: Final = ("openai-organization", "openai-project", "idempotency-key", "ocp-apim-subscription-key")
"""Headers with which a client would choose among our accounts at a provider, or be given another tenant's answer in one."""

_WISHES: Final = (
    *("x-http-method-override", "x-method-override", "x-http-method", "range", "if-range"),
    *("content-encoding", "te", "trailer"),
)
"""Headers with which a client would be answered something else, or in part: an answer without its usage."""

_CLOUD_PREFIXES: Final = ("x-goog-", "x-ms-")
"""Headers from which Google and Azure take wishes: a choice of fields, an account, another method."""

_SIGNED_PREFIX: Final = "x-amz"
"""Headers that a signature covers or AWS takes wishes from, such as another tier or guardrail. An attempt elsewhere gets none of them."""

_ACCOUNT_LIMITS: Final = (Header.RATE_LIMIT_PREFIX, "anthropic-ratelimit-")
"""Headers in which a provider tells what is left of our account's limits; the first ones are a key's own for our clients."""

_WHOSE: Final[Json] = {
    # One of them is empty: a request was let pass by a lease, or asked about.
    "append": {
        "header": {
            "key": Header.ORG,
            "value": f"%DYNAMIC_METADATA({Metadata.NAMESPACE}:{Metadata.LEASE}:{GrantField.ORG_ID})%"
            f"%DYNAMIC_METADATA({Metadata.GRANT_NAMESPACE}:{GrantField.ORG_ID})%",
        },
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
}
"""Tells the log of attempts whose request was answered."""


def provider_filters(
    cluster: str, provider: Provider, org_id: OrgId | None = None, *, private_allowed: bool
) -> list[Json]:
    """The upstream filters of a cluster that leads to a provider; they run once per attempt.

    With an organisation's own key all else is the same, so what is prepared for the one is prepared for the other.
    """
    return [
        # Where a name leads is asked of DNS again and again, so it is judged whenever a host has been chosen.
        http_filter(_ADDRESSES, _refused_addresses(private_allowed=private_allowed)),
        _preparation(cluster),
        # Headers are shared by all attempts, so each one begins by forgetting what the client or the last one sent.
        http_filter("scrub", _scrub(own_key=org_id is not None)),
        *_headers("default_headers", provider.template.default_headers, "ADD_IF_ABSENT"),
        *_headers("headers", provider.headers, "OVERWRITE_IF_EXISTS_OR_ADD"),
        *_credential(provider, org_id),
        http_filter("upstream_codec", typed("envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec")),
    ]


def simulator_filters() -> list[Json]:
    """The upstream filters of the simulator's cluster.

    Like a provider it demands a credential and takes any: this one is nobody's.
    """
    return [
        _preparation(Cluster.SIMULATOR),
        http_filter("scrub", _scrub()),
        *_headers(
            "default_headers",
            {Header.AUTHORIZATION: "Bearer test", "anthropic-version": "2023-06-01"},
            "ADD_IF_ABSENT",
        ),
        http_filter("upstream_codec", typed("envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec")),
    ]


def translated_filters(provider: Provider, translation: Translation, *, own_key: bool = False) -> list[Json]:
    """The upstream filters of a cluster that leads to a provider's through the translator, or to that with an organisation's own key."""
    told = {
        Header.PROVIDER_CLUSTER: provider_cluster(provider.name),
        Header.TRANSLATE: f"{translation.client}/{translation.provider}",
        **(_peculiarities(provider.template) if translation.provider is Dialect.OPENAI else {}),
    }
    return [
        # In the client's dialect still, so that admission's bound on the output is written where it knows the place.
        _preparation(translated_cluster(provider.name, translation.client)),
        http_filter("scrub", _scrub_on_the_way()),
        *_headers("translation", told, "OVERWRITE_IF_EXISTS_OR_ADD"),
        *(_own_key(provider) if own_key else _counted(provider) if provider.is_capped else []),
        http_filter("upstream_codec", typed("envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec")),
    ]


def capping_filters(provider: Provider, *, own_key: bool = False) -> list[Json]:
    """The upstream filters of a cluster that leads to a provider's by way of who can be told that it is full."""
    return [
        _preparation(capped_cluster(provider.name)),
        http_filter("scrub", _scrub_on_the_way()),
        *_headers("capped", {Header.PROVIDER_CLUSTER: provider_cluster(provider.name)}, "OVERWRITE_IF_EXISTS_OR_ADD"),
        *(_own_key(provider) if own_key else _counted(provider)),
        http_filter("upstream_codec", typed("envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec")),
    ]


def _own_key(provider: Provider) -> list[Json]:
    """Whose key it is, the front filter has written down. It is not our account that is used, so nobody counts it."""
    org_id = f"%DYNAMIC_METADATA({Metadata.NAMESPACE}:{Metadata.OWN_KEY_ORG})%"
    return [http_filter("own_key", overwritten({Header.PROVIDER_CLUSTER: own_key_cluster(provider.name, org_id)}))]


def _counted(provider: Provider) -> list[Json]:
    """What ext_authz is told, by `inner_listener.py`, of an attempt at a provider that may be full."""
    told = {
        Header.LIMITED: provider.name,
        # Of several on one machine the operator's name for each tells them apart.
        Header.ENVOY: "%HOSTNAME%/%CEL(xds.node.id)%",
        Header.ORG: _granted(GrantField.ORG_ID),
        Header.EXPECTED_TOKENS: _granted(GrantField.EXPECTED_TOKENS),
    }
    return [http_filter("counted", overwritten(told))]


def _granted(field: str) -> str:
    """What a grant says, whether the request was asked about or passed by a lease: one of both is empty."""
    return (
        f"%DYNAMIC_METADATA({Metadata.GRANT_NAMESPACE}:{field})%"
        f"%DYNAMIC_METADATA({Metadata.NAMESPACE}:{Metadata.LEASE}:{field})%"
    )


def _peculiarities(template: KindTemplate) -> Mapping[str, str]:
    """What a kind takes of a chat in another way than others."""
    fields = {
        **template.chat_fields,
        **({} if template.output_bound is None else {"max_completion_tokens": template.output_bound}),
        **({"stream_options": None} if template.refuses_stream_options else {}),
    }
    told = ",".join(f"{name}={other or ''}" for name, other in sorted(fields.items()))
    return {Header.CHAT_FIELDS: told} if told else {}


def _preparation(cluster: str) -> JsonObject:
    """Body, model and path as a cluster is to be sent them; skipped when the front filter has prepared them."""
    return http_filter(
        upstream_filter(cluster),
        typed(
            "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
            extension_config={"name": upstream_filter(cluster), "typed_config": lua_config("upstream")},
            xds_matcher=_skip_when(Header.PREPARED, cluster),
        ),
    )


def _skip_when(header: str, value: str) -> JsonObject:
    return {
        "matcher_tree": {
            "input": {
                "name": header,
                "typed_config": typed("envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name=header),
            },
            "exact_match_map": {"map": {value: {"action": SKIP}}},
        }
    }


@cache
def _refused_addresses(*, private_allowed: bool) -> JsonObject:
    refused = [_upstream_in(network) for network in refused_networks(private_allowed=private_allowed)]
    assigned = {"or_rules": {"rules": [_upstream_in(network) for network in ASSIGNED_V6]}}
    unassigned: JsonObject = {"and_rules": {"rules": [_upstream_in(IPv6Network("::/0")), {"not_rule": assigned}]}}
    policy: JsonObject = {"permissions": [*refused, unassigned], "principals": [{"any": True}]}
    return typed(
        "envoy.extensions.filters.http.rbac.v3.RBAC", rules={"action": "DENY", "policies": {"address": policy}}
    )


def _upstream_in(network: Network) -> JsonObject:
    return {
        "matcher": {
            "name": "envoy.rbac.matchers.upstream_ip_port",
            "typed_config": typed(
                "envoy.extensions.rbac.matchers.upstream_ip_port.v3.UpstreamIpPortMatcher",
                upstream_ip={"address_prefix": str(network[0]), "prefix_len": network.prefixlen},
            ),
        }
    }


def _scrub(*, own_key: bool = False) -> JsonObject:
    """What a provider is not told of the client, nor the client of our account at the provider."""
    told: Json = {
        "append": {
            "header": {"key": Header.OWN_KEY, "value": "true"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    }
    return typed(
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        mutations={
            "request_mutations": _scrubbed(),
            "response_mutations": [
                *_without((Header.INTERNAL_PREFIX,)),
                # For the log of attempts, before it is gone.
                {
                    "append": {
                        "header": {"key": Header.LIMITS, "value": packed_headers()},
                        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
                    }
                },
                _WHOSE,
                *_without(_ACCOUNT_LIMITS),
                {"remove": Header.DROPPED},
                *([told] if own_key else []),
            ],
        },
    )


def _scrub_on_the_way() -> JsonObject:
    """What the translator is not told of the client either; the answer is the provider's cluster's to scrub, which does not know whose it is."""
    return typed(
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
        mutations={"request_mutations": _scrubbed(), "response_mutations": [_WHOSE]},
    )


def _scrubbed() -> list[Json]:
    return [
        *({"remove": header} for header in (*CREDENTIAL_HEADERS, *_ACCOUNT_HEADERS, *_WISHES, *_CLIENT_HEADERS)),
        *_without((Header.INTERNAL_PREFIX, Header.TOLLGATE_PREFIX, "x-envoy-", "x-forwarded-", _SIGNED_PREFIX)),
        *_without(_CLOUD_PREFIXES),
    ]


def _without(prefixes: Sequence[str]) -> list[Json]:
    return [{"remove_on_match": {"key_matcher": {"prefix": prefix}}} for prefix in prefixes]


def _headers(name: str, headers: Mapping[str, str], append_action: str) -> list[Json]:
    if not headers:
        return []
    mutations: list[Json] = [
        # To Envoy a percent sign begins a command; here it is a percent sign.
        {"append": {"header": {"key": key, "value": value.replace("%", "%%")}, "append_action": append_action}}
        for key, value in sorted(headers.items())
    ]
    return [http_filter(name, header_mutation(mutations))]


def _credential(provider: Provider, org_id: OrgId | None) -> list[Json]:
    if (key := provider.aws_key) is not None:
        return [http_filter("signature", _signature(provider, key))]
    if provider.credential is None:
        return []
    injected = typed(
        "envoy.extensions.http.injected_credentials.generic.v3.Generic",
        credential={
            "name": credential_secret(provider.name, org_id),
            "sds_config": {"ads": {}, "resource_api_version": "V3"},
        },
        header=provider.template.credential_header,
        header_value_prefix=provider.template.credential_prefix,
    )
    return [
        http_filter(
            "credential",
            typed(
                "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
                overwrite=True,
                allow_request_without_credential=False,
                credential={"name": "envoy.http.injected_credentials.generic", "typed_config": injected},
            ),
        )
    ]


def _signature(provider: Provider, key: AwsKey) -> JsonObject:
    """AWS's Signature Version 4, of the body and the headers that AWS demands.

    Envoy has no secret by SDS for it. The key stands in the filter, in fields that Envoy shows as `[redacted]` in its configuration
    dump (docs/decisions/0021).
    """
    token = {} if key.session_token is None else {"session_token": key.session_token.get_secret_value()}
    return typed(
        "envoy.extensions.filters.http.aws_request_signing.v3.AwsRequestSigning",
        service_name=provider.template.signing_service,
        region=provider.region,
        # What Envoy's router will write there once a host is chosen, which may be after this.
        host_rewrite=provider.host,
        # Host, content type and what begins with x-amz are signed in any case; all else may be changed on the way out.
        match_excluded_headers=[{"safe_regex": {"regex": ".*"}}],
        credential_provider={
            "inline_credential": {
                "access_key_id": key.access_key_id,
                "secret_access_key": key.secret_access_key.get_secret_value(),
                **token,
            }
        },
    )
