"""The HTTP filters of the listener and of a provider's cluster, in order, with the reason for each place.

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
from control_plane.xds.browsers import cors_filter
from control_plane.xds.bursts import bursts_filter
from control_plane.xds.lua import BEHIND_ADMISSION, FRONT_FILTER, lua_config, upstream_filter
from control_plane.xds.protobuf import Json, JsonObject, typed, typed_struct
from control_plane.xds.replicas import grpc_retries
from control_plane.xds.secrets import credential_secret
from gateway_core.contract import (
    ANSWER_HEADERS,
    CACHE_WAIT_S_MAX,
    CREDENTIAL_HEADERS,
    GATEWAY_HEALTH_PATH,
    AttemptCount,
    Cluster,
    GrantField,
    Header,
    Metadata,
    capped_cluster,
    own_key_cluster,
    provider_cluster,
    translated_cluster,
)
from gateway_core.endpoints import Dialect
from gateway_core.ids import OrgId
from gateway_core.provider_limits import packed_headers
from gateway_core.providers import Translation

EXT_AUTHZ_ATTEMPT_TIMEOUT: Final = "2s"
EXT_AUTHZ_TIMEOUT: Final = "4s"
"""Enough for a replica that keeps silent and another one that is asked then."""

TRANSLATION: Final = "translation"
"""Name of the listener inside Envoy behind which attempts are translated."""

TRANSLATOR_TIMEOUT: Final = "10s"
"""For one message; the largest body takes a second."""

_TOLD_TO_THE_TRANSLATOR: Final = (
    *(":path", ":status", "content-type"),
    *(Header.TRANSLATE, Header.CHAT_FIELDS, Header.OWN_REPLY),
)

CAPPED: Final = "capped"
"""Name of the listener inside Envoy that an attempt passes whose provider may be full."""

ATTEMPT_TIMEOUT: Final = "0.25s"
"""Longer nobody waits to be told that a provider is not full."""

RESPONSE_CACHE_TIMEOUT: Final = "0.25s"
"""For one message: what a request may lose to a cache that keeps silent."""

_TOLD_TO_THE_CACHE: Final = (":status", "content-type", Header.DROPPED)

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

EARLY_MUTATIONS: Final[tuple[Json, ...]] = (
    # Nobody outside speaks our internal headers or Envoy's.
    {"remove_on_match": {"key_matcher": {"prefix": Header.INTERNAL_PREFIX}}},
    {"remove_on_match": {"key_matcher": {"prefix": "x-envoy-"}}},
    # The billing key is ours to choose; the client's own id rides along under another name.
    {
        "append": {
            "header": {"key": Header.CLIENT_REQUEST_ID, "value": f"%REQ({Header.REQUEST_ID}):200%"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    },
    {"remove": Header.REQUEST_ID},
    # A compressed answer could not be read for its usage.
    {"remove": "accept-encoding"},
    # Bodies here are JSON in UTF-8, and a provider that believed another charset would read another body than we did. Where a form
    # is asked for, the front filter says what the client said, if there is one way only to read that.
    {
        "append": {
            "header": {"key": Header.CONTENT_TYPE, "value": "%REQ(content-type)%"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    },
    {
        "append": {
            "header": {"key": "content-type", "value": "application/json"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    },
)

_SKIP: Final[JsonObject] = {
    "name": "skip",
    "typed_config": typed("envoy.extensions.filters.common.matcher.action.v3.SkipFilter"),
}

_LEASED: Final[JsonObject] = {
    "single_predicate": {
        "input": {
            "name": Metadata.LEASE,
            "typed_config": typed(
                "envoy.extensions.matching.common_inputs.network.v3.DynamicMetadataInput",
                filter=Metadata.NAMESPACE,
                path=[{"key": Metadata.LEASE}],
            ),
        },
        "custom_match": {
            "name": "present",
            "typed_config": typed(
                "envoy.extensions.matching.input_matchers.metadata.v3.Metadata", value={"present_match": True}
            ),
        },
    }
}
"""Of a request that the front filter lets pass; nobody else writes there, so no header could say it."""

_CLIENT_ADDRESS: Final[Json] = {
    # ext_authz is told the other end of the connection, whatever Envoy has detected.
    "append": {
        "header": {"key": Header.CLIENT_ADDRESS, "value": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%"},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
}


def session_filters(*, behind_proxies: bool, attempts_log: JsonObject) -> list[Json]:
    """The downstream filters of a WebSocket. It has no body that a limit could be of, no lease, and no answer that could say what it costs.

    The front filter that stands behind admission reads what the provider sends, and never waits for anybody; the first one reads the client's
    events, and asks ext_authz while what it has not to read goes on.
    """
    return [
        _filter(FRONT_FILTER, lua_config("front")),
        *_deciding(behind_proxies=behind_proxies),
        _filter(BEHIND_ADMISSION, _keeping_leases()),
        _router(attempts_log),
    ]


def listener_filters(
    *,
    max_body_bytes: int,
    burst_requests_per_second_max: int,
    behind_proxies: bool,
    answers_browsers: bool,
    has_cache: bool,
    attempts_log: JsonObject,
) -> list[Json]:
    """The downstream filters; behind trusted proxies, the connection does not say where a request comes from."""
    return [
        # In front of everything: whoever asks whether Envoy serves brings no key, and leaves no line in the spool.
        _filter(
            "health",
            typed(
                "envoy.extensions.filters.http.health_check.v3.HealthCheck",
                pass_through_mode=False,
                headers=[{"name": ":path", "string_match": {"exact": GATEWAY_HEALTH_PATH}}],
            ),
        ),
        # In front of what asks for a key, which a preflight never has; on the way back it marks refusals too.
        *([cors_filter()] if answers_browsers else []),
        # Before all that costs.
        *([bursts_filter(burst_requests_per_second_max)] if burst_requests_per_second_max else []),
        # Before what reads, so that nothing behind it ever holds more than the limit.
        _filter(
            "body_size_limit",
            typed_struct(
                "envoy.extensions.filters.http.body_size_limit.v3.BodySizeLimit", max_request_bytes=max_body_bytes
            ),
        ),
        # Reads the model, so that everything behind it can decide by it.
        _filter(FRONT_FILTER, lua_config("front")),
        *_deciding(behind_proxies=behind_proxies),
        # The front filter once more, and only for requests that were asked about: the answer may have brought a lease, or said where
        # the request goes.
        _filter(BEHIND_ADMISSION, _keeping_leases()),
        # In front of whoever answers, and only for requests that ask: the front filter is told which cluster answered, and asks
        # billing_sink what that costs.
        _filter("answered_by", _answered_by()),
        # Behind admission, since a cached answer is for those who would have got it; and only for requests that want it.
        *([_filter("response_cache", _response_cache())] if has_cache else []),
        _router(attempts_log),
    ]


def _deciding(*, behind_proxies: bool) -> list[Json]:
    """Decides. Behind the front filter because it is told model and size, before the router because it may refuse."""
    decision = typed(
        "envoy.extensions.filters.http.ext_authz.v3.ExtAuthz",
        transport_api_version="V3",
        grpc_service={
            "envoy_grpc": {"cluster_name": Cluster.EXT_AUTHZ},
            "timeout": EXT_AUTHZ_TIMEOUT,
            "retry_policy": grpc_retries(attempt_timeout=EXT_AUTHZ_ATTEMPT_TIMEOUT),
        },
        failure_mode_allow=False,
        status_on_error={"code": 503},
        metadata_context_namespaces=[Metadata.NAMESPACE],
        allowed_headers={
            "patterns": [
                {"exact": Header.AUTHORIZATION},
                {"exact": Header.API_KEY},
                {"exact": Header.REQUEST_ID},
                *([{"exact": Header.CLIENT_ADDRESS}] if behind_proxies else []),
            ]
        },
    )
    return [
        *([_filter("client_address", _header_mutation([_CLIENT_ADDRESS]))] if behind_proxies else []),
        # Not there for what a lease lets pass, and for everything else.
        _filter(Metadata.GRANT_NAMESPACE, _made_unless(_LEASED, Metadata.GRANT_NAMESPACE, decision)),
        # A filter that could not be made is left out by Envoy; what nobody has decided about ends here.
        _filter("admitted", _admitted()),
    ]


def _admitted() -> JsonObject:
    """Lets pass what has a grant or a lease, and nothing else."""
    named: list[Json] = [
        {
            "sourced_metadata": {
                "metadata_matcher": {"filter": namespace, "path": [{"key": key}], "value": {"present_match": True}}
            }
        }
        for namespace, key in ((Metadata.GRANT_NAMESPACE, GrantField.KEY_ID), (Metadata.NAMESPACE, Metadata.LEASE))
    ]
    policy: JsonObject = {"permissions": [{"any": True}], "principals": named}
    return typed(
        "envoy.extensions.filters.http.rbac.v3.RBAC", rules={"action": "ALLOW", "policies": {"admitted": policy}}
    )


def _router(attempts_log: JsonObject) -> JsonObject:
    return _filter(
        "router",
        typed(
            "envoy.extensions.filters.http.router.v3.Router", suppress_envoy_headers=True, upstream_log=[attempts_log]
        ),
    )


def provider_filters(
    cluster: str, provider: Provider, org_id: OrgId | None = None, *, private_allowed: bool
) -> list[Json]:
    """The upstream filters of a cluster that leads to a provider; they run once per attempt.

    With an organisation's own key all else is the same, so what is prepared for the one is prepared for the other.
    """
    return [
        # Where a name leads is asked of DNS again and again, so it is judged whenever a host has been chosen.
        _filter(_ADDRESSES, _refused_addresses(private_allowed=private_allowed)),
        _preparation(cluster),
        # Headers are shared by all attempts, so each one begins by forgetting what the client or the last one sent.
        _filter("scrub", _scrub(own_key=org_id is not None)),
        *_headers("default_headers", provider.template.default_headers, "ADD_IF_ABSENT"),
        *_headers("headers", provider.headers, "OVERWRITE_IF_EXISTS_OR_ADD"),
        *_credential(provider, org_id),
        _filter("upstream_codec", typed("envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec")),
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
        _filter("scrub", _scrub_on_the_way()),
        *_headers("translation", told, "OVERWRITE_IF_EXISTS_OR_ADD"),
        *(_own_key(provider) if own_key else _counted(provider) if provider.is_capped else []),
        _filter("upstream_codec", typed("envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec")),
    ]


def _own_key(provider: Provider) -> list[Json]:
    """Whose key it is, the front filter has written down. It is not our account that is used, so nobody counts it."""
    org_id = f"%DYNAMIC_METADATA({Metadata.NAMESPACE}:{Metadata.OWN_KEY_ORG})%"
    return [_filter("own_key", _overwritten({Header.PROVIDER_CLUSTER: own_key_cluster(provider.name, org_id)}))]


def _counted(provider: Provider) -> list[Json]:
    """What ext_authz is told, by `_asking_whether_full`, of an attempt at a provider that may be full."""
    told = {
        Header.LIMITED: provider.name,
        # Of several on one machine the operator's name for each tells them apart.
        Header.ENVOY: "%HOSTNAME%/%CEL(xds.node.id)%",
        Header.ORG: _granted(GrantField.ORG_ID),
        Header.EXPECTED_TOKENS: _granted(GrantField.EXPECTED_TOKENS),
    }
    return [_filter("counted", _overwritten(told))]


def _granted(field: str) -> str:
    """What a grant says, whether the request was asked about or passed by a lease: one of both is empty."""
    return (
        f"%DYNAMIC_METADATA({Metadata.GRANT_NAMESPACE}:{field})%"
        f"%DYNAMIC_METADATA({Metadata.NAMESPACE}:{Metadata.LEASE}:{field})%"
    )


def _overwritten(headers: Mapping[str, str]) -> JsonObject:
    return _header_mutation(
        [
            {"append": {"header": {"key": key, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
            for key, value in headers.items()
        ]
    )


def capping_filters(provider: Provider, *, own_key: bool = False) -> list[Json]:
    """The upstream filters of a cluster that leads to a provider's by way of who can be told that it is full."""
    return [
        _preparation(capped_cluster(provider.name)),
        _filter("scrub", _scrub_on_the_way()),
        *_headers("capped", {Header.PROVIDER_CLUSTER: provider_cluster(provider.name)}, "OVERWRITE_IF_EXISTS_OR_ADD"),
        *(_own_key(provider) if own_key else _counted(provider)),
        _filter("upstream_codec", typed("envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec")),
    ]


def capped_filters() -> list[Json]:
    """The filters between the two passes of such an attempt."""
    return [
        _asking_whether_full(),
        _nothing_left_to_prepare(),
        _filter("router", typed("envoy.extensions.filters.http.router.v3.Router", suppress_envoy_headers=True)),
    ]


def _asking_whether_full() -> JsonObject:
    """Asks ext_authz about attempts at providers that may be full, and about no others. Limits are in nobody's way when it does not answer."""
    told = {
        AttemptCount.PROVIDER: Header.LIMITED,
        AttemptCount.ENVOY: Header.ENVOY,
        GrantField.ORG_ID: Header.ORG,
        GrantField.EXPECTED_TOKENS: Header.EXPECTED_TOKENS,
    }
    return _filter(
        Metadata.ATTEMPT_NAMESPACE,
        typed(
            "envoy.extensions.filters.http.ratelimit.v3.RateLimit",
            domain=CAPPED,
            timeout=ATTEMPT_TIMEOUT,
            failure_mode_deny=False,
            # With it an answer is never retried, and the next provider is to be asked.
            disable_x_envoy_ratelimited_header=True,
            rate_limit_service={
                "grpc_service": {
                    "envoy_grpc": {"cluster_name": Cluster.EXT_AUTHZ},
                    "retry_policy": grpc_retries(attempt_timeout=ATTEMPT_TIMEOUT),
                },
                "transport_api_version": "V3",
            },
            rate_limits=[
                {
                    "actions": [
                        {
                            "request_headers": {
                                "header_name": header,
                                "descriptor_key": key,
                                # Without a limit of tokens none are expected; without a provider nobody is asked.
                                "skip_if_absent": header == Header.EXPECTED_TOKENS,
                            }
                        }
                        for key, header in told.items()
                    ]
                }
            ],
        ),
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


def translation_filters() -> list[Json]:
    """The filters between the two passes of a translated attempt."""
    return [
        _asking_whether_full(),
        _nothing_left_to_prepare(),
        _filter(
            "translator",
            typed(
                "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
                grpc_service={
                    "envoy_grpc": {"cluster_name": Cluster.TRANSLATOR},
                    "retry_policy": grpc_retries(attempt_timeout=TRANSLATOR_TIMEOUT),
                },
                # Headers have to be sent: with a body alone its translation was lost, and the path's with it.
                processing_mode={
                    "request_header_mode": "SEND",
                    "request_body_mode": "BUFFERED",
                    "response_header_mode": "SEND",
                    # The translator asks for pieces where there is a stream.
                    "response_body_mode": "BUFFERED",
                    "request_trailer_mode": "SKIP",
                    "response_trailer_mode": "SKIP",
                },
                allow_mode_override=True,
                failure_mode_allow=False,
                status_on_error={"code": 503},
                message_timeout=TRANSLATOR_TIMEOUT,
                # It needs no credential, so it is shown none.
                forward_rules={"allowed_headers": {"patterns": [{"exact": name} for name in _TOLD_TO_THE_TRANSLATOR]}},
            ),
        ),
        _filter("router", typed("envoy.extensions.filters.http.router.v3.Router", suppress_envoy_headers=True)),
    ]


def _nothing_left_to_prepare() -> JsonObject:
    """For the script of the provider's cluster, at every try: headers say nothing there after the first one."""
    return _filter(
        "translated",
        typed_struct(
            "envoy.extensions.filters.http.set_metadata.v3.Config",
            metadata=[{"metadata_namespace": Metadata.NAMESPACE, "value": {Metadata.TRANSLATED: True}}],
        ),
    )


def simulator_filters() -> list[Json]:
    """The upstream filters of the simulator's cluster.

    Like a provider it demands a credential and takes any: this one is nobody's.
    """
    return [
        _preparation(Cluster.SIMULATOR),
        _filter("scrub", _scrub()),
        *_headers(
            "default_headers",
            {Header.AUTHORIZATION: "Bearer test", "anthropic-version": "2023-06-01"},
            "ADD_IF_ABSENT",
        ),
        _filter("upstream_codec", typed("envoy.extensions.filters.http.upstream_codec.v3.UpstreamCodec")),
    ]


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


def _filter(name: str, config: JsonObject) -> JsonObject:
    return {"name": name, "typed_config": config}


def _preparation(cluster: str) -> JsonObject:
    """Body, model and path as a cluster is to be sent them; skipped when the front filter has prepared them."""
    return _filter(
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
            "exact_match_map": {"map": {value: {"action": _SKIP}}},
        }
    }


def _keeping_leases() -> JsonObject:
    """Only where a question to ext_authz has a number."""
    has_number = _header_is(Header.ASKED, {"safe_regex": {"google_re2": {}, "regex": "[0-9]+"}})
    return _made_unless(_not(has_number), BEHIND_ADMISSION, lua_config("front"))


def _answered_by() -> JsonObject:
    """Tells which cluster an answer comes from; only where the request asks what it costs."""
    told: JsonObject = {
        "append": {
            "header": {"key": Header.CLUSTER, "value": "%UPSTREAM_CLUSTER%"},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }
    }
    config = typed(
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation", mutations={"response_mutations": [told]}
    )
    return _made_unless(_not(_header_is(Header.COST, {"exact": "true"})), "answered_by", config)


def _response_cache() -> JsonObject:
    """Answers with a cached answer, or sees one that is to be cached. Without it every request goes on as if there were none."""
    config = typed(
        "envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
        grpc_service={
            "envoy_grpc": {"cluster_name": Cluster.RESPONSE_CACHE},
            "retry_policy": grpc_retries(attempt_timeout=RESPONSE_CACHE_TIMEOUT),
        },
        # Of the answer it is sent nothing unless it asks: an answer of ours to a request that was refused in front of this
        # filter passes it too, and nobody has looked whether that wanted it.
        processing_mode={
            "request_header_mode": "SEND",
            "request_body_mode": "BUFFERED",
            "response_header_mode": "SKIP",
            "response_body_mode": "NONE",
            "request_trailer_mode": "SKIP",
            "response_trailer_mode": "SKIP",
        },
        allow_mode_override=True,
        failure_mode_allow=True,
        message_timeout=RESPONSE_CACHE_TIMEOUT,
        # Who waits for somebody else's answer says so.
        max_message_timeout=f"{CACHE_WAIT_S_MAX + 1}s",
        route_cache_action="RETAIN",
        # Whose request it is and what was read from it; and of its headers those alone that ask for another answer.
        metadata_options={"forwarding_namespaces": {"untyped": [Metadata.NAMESPACE, Metadata.GRANT_NAMESPACE]}},
        forward_rules={
            "allowed_headers": {
                "patterns": [
                    *({"exact": name} for name in _TOLD_TO_THE_CACHE),
                    *({"prefix": prefix} for prefix in ANSWER_HEADERS),
                ]
            }
        },
    )
    return _made_unless(_not(_header_is(Header.CACHE_ASKED, {"exact": "true"})), "response_cache", config)


def _made_unless(predicate: JsonObject, name: str, config: JsonObject) -> JsonObject:
    """A filter that few requests need, made for those only: to make one and have it skipped costs most of what it costs to run it.

    What nothing is known of gets it.
    """
    made: JsonObject = {
        "name": "made",
        "typed_config": typed(
            "envoy.extensions.filters.http.composite.v3.ExecuteFilterAction",
            typed_config={"name": name, "typed_config": config},
        ),
    }
    return typed(
        "envoy.extensions.common.matching.v3.ExtensionWithMatcher",
        extension_config={
            "name": name,
            "typed_config": typed("envoy.extensions.filters.http.composite.v3.Composite"),
        },
        xds_matcher={
            "matcher_list": {"matchers": [{"predicate": predicate, "on_match": {"action": _SKIP}}]},
            "on_no_match": {"action": made},
        },
    )


def _header_is(header: str, value: JsonObject) -> JsonObject:
    return {
        "single_predicate": {
            "input": {
                "name": header,
                "typed_config": typed("envoy.type.matcher.v3.HttpRequestHeaderMatchInput", header_name=header),
            },
            "value_match": value,
        }
    }


def _not(predicate: JsonObject) -> JsonObject:
    return {"not_matcher": predicate}


def _header_mutation(mutations: list[Json]) -> JsonObject:
    return typed(
        "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation", mutations={"request_mutations": mutations}
    )


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
    return [_filter(name, _header_mutation(mutations))]


def _credential(provider: Provider, org_id: OrgId | None) -> list[Json]:
    if (key := provider.aws_key) is not None:
        return [_filter("signature", _signature(provider, key))]
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
        _filter(
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
