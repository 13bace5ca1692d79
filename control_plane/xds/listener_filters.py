"""The HTTP filters of the listener, in order, with the reason for each place.

Filters fail open unless told otherwise; each one here is told.
"""

from typing import Final

from control_plane.xds.browsers import cors_filter
from control_plane.xds.bursts import bursts_filter
from control_plane.xds.http_filter import SKIP, header_mutation, http_filter
from control_plane.xds.lua import BEHIND_ADMISSION, FRONT_FILTER, lua_config
from control_plane.xds.protobuf import Json, JsonObject, typed, typed_struct
from control_plane.xds.replicas import grpc_retries
from gateway_core.clusters import Cluster
from gateway_core.contract import ANSWER_HEADERS, CACHE_WAIT_S_MAX, GATEWAY_HEALTH_PATH, GrantField, Header, Metadata

EXT_AUTHZ_ATTEMPT_TIMEOUT: Final = "2s"

EXT_AUTHZ_TIMEOUT: Final = "4s"
"""Enough for a replica that keeps silent and another one that is asked then."""

RESPONSE_CACHE_TIMEOUT: Final = "0.25s"
"""For one message: what a request may lose to a cache that keeps silent."""

_TOLD_TO_THE_CACHE: Final = (":status", "content-type", Header.DROPPED)

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


def session_filters(
    *, burst_requests_per_second_max: int, behind_proxies: bool, attempts_log: JsonObject
) -> list[Json]:
    """The downstream filters of a WebSocket. It has no body that a limit could be of, no lease, and no answer that could say what it costs.

    The front filter that stands behind admission reads what the provider sends, and never waits for anybody; the first one reads the client's
    events, and asks ext_authz while what it has not to read goes on.
    """
    return [
        *_bursts(burst_requests_per_second_max),
        http_filter(FRONT_FILTER, lua_config("front")),
        *_deciding(behind_proxies=behind_proxies),
        http_filter(BEHIND_ADMISSION, _keeping_leases()),
        _router(attempts_log),
    ]


def _bursts(requests_per_second_max: int) -> list[Json]:
    return [bursts_filter(requests_per_second_max)] if requests_per_second_max else []


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
        http_filter(
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
        *_bursts(burst_requests_per_second_max),
        # Before what reads, so that nothing behind it ever holds more than the limit.
        http_filter(
            "body_size_limit",
            typed_struct(
                "envoy.extensions.filters.http.body_size_limit.v3.BodySizeLimit", max_request_bytes=max_body_bytes
            ),
        ),
        # Reads the model, so that everything behind it can decide by it.
        http_filter(FRONT_FILTER, lua_config("front")),
        *_deciding(behind_proxies=behind_proxies),
        # The front filter once more, and only for requests that were asked about: the answer may have brought a lease, or said where
        # the request goes.
        http_filter(BEHIND_ADMISSION, _keeping_leases()),
        # In front of whoever answers, and only for requests that ask: the front filter is told which cluster answered, and asks
        # billing_sink what that costs.
        http_filter("answered_by", _answered_by()),
        # Behind admission, since a cached answer is for those who would have got it; and only for requests that want it.
        *([http_filter("response_cache", _response_cache())] if has_cache else []),
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
        *([http_filter("client_address", header_mutation([_CLIENT_ADDRESS]))] if behind_proxies else []),
        # Not there for what a lease lets pass, and for everything else.
        http_filter(Metadata.GRANT_NAMESPACE, _made_unless(_LEASED, Metadata.GRANT_NAMESPACE, decision)),
        # A filter that could not be made is left out by Envoy; what nobody has decided about ends here.
        http_filter("admitted", _admitted()),
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
    return http_filter(
        "router",
        typed(
            "envoy.extensions.filters.http.router.v3.Router", suppress_envoy_headers=True, upstream_log=[attempts_log]
        ),
    )


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
            "matcher_list": {"matchers": [{"predicate": predicate, "on_match": {"action": SKIP}}]},
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
