"""Lines of the spool as Envoy writes them: sorted keys, no spaces, null for what has no value."""

import json
from collections.abc import Mapping

Json = Mapping[str, object]

CHAT_USAGE: Json = {"prompt_tokens": 5, "completion_tokens": 18, "total_tokens": 23}
MESSAGE_START: Json = {"input_tokens": 472, "cache_read_input_tokens": 12, "output_tokens": 2}
MESSAGE_DELTA: Json = {"output_tokens": 89}

GRANT: Json = {
    "ext_authz_duration": 3,
    "hold_nano_usd": "9840450",
    "key_id": "key_demo",
    "org_id": "org_demo",
    "price_version": 18,
    "project_id": "prj_demo",
}
REQUEST: Json = {
    "body_bytes": 67,
    "endpoint": "chat",
    "hide_usage": False,
    "model": "gpt-4o-mini",
    "stream": False,
}
MESSAGES: Json = {**REQUEST, "endpoint": "messages", "model": "claude-sonnet-4-5"}


def line(request_id: str | None = "b1d71dd1-746f-46ff-aeb5-045245ff7fd4", **fields: object) -> Json:
    """A finished chat request that went well, but for the given fields. Usage may be given as an object."""
    for name in ("usage_first", "usage_last"):
        if isinstance(fields.get(name), Mapping):
            fields[name] = json.dumps(fields[name], separators=(",", ":"))
    return {
        "attempts": 1,
        "bytes_received": 67,
        "bytes_sent": 697,
        "cluster": "provider/openai",
        "duration_ms": 3,
        "first_byte_ms": 2,
        "grant": GRANT,
        "method": "POST",
        "reply_id": request_id,
        "request": REQUEST,
        "request_id": request_id,
        "response_details": "via_upstream",
        "response_flags": "-",
        "route": "chat:gpt-4o-mini",
        "sse_events": None,
        "start_time": "2026-11-23T21:58:03.495Z",
        "status": 200,
        "type": "DownstreamEnd",
        "usage_first": json.dumps(CHAT_USAGE, separators=(",", ":")),
        "usage_last": None,
        "user_agent": "curl/7.88.1",
        "v": 1,
        **fields,
    }


def chat_stream(request_id: str = "chat-stream", **fields: object) -> Json:
    """A chat request that was streamed to its end."""
    return line(request_id, **{"request": {**REQUEST, "stream": True, "hide_usage": True}, "sse_events": 21, **fields})


def messages_stream(request_id: str = "messages-stream", **fields: object) -> Json:
    """A messages request that was streamed to its end."""
    return line(
        request_id,
        **{
            "cluster": "provider/anthropic",
            "route": "messages:claude-sonnet-4-5",
            "request": {**MESSAGES, "stream": True},
            "usage_first": MESSAGE_START,
            "usage_last": MESSAGE_DELTA,
            "sse_events": 40,
            **fields,
        },
    )


def refused(request_id: str = "refused", *, code: str = "insufficient_quota", **fields: object) -> Json:
    """A request that ext_authz refused; it reached no provider."""
    grant = {name: GRANT[name] for name in ("ext_authz_duration", "key_id", "org_id", "project_id")}
    return line(
        request_id,
        **{
            "attempts": 0,
            "grant": {**grant, "error_code": code},
            "response_details": "ext_authz_denied",
            "response_flags": "UAEX",
            "status": 402,
            "usage_first": None,
            **fields,
        },
    )


def not_a_request(**fields: object) -> Json:
    """A connection that ended before there was a request: nothing that would be its id."""
    return line(
        None,
        **{
            "attempts": 0,
            "bytes_received": 0,
            "bytes_sent": 0,
            "cluster": None,
            "grant": None,
            "method": None,
            "request": None,
            "response_details": "downstream_remote_disconnect",
            "response_flags": "DC",
            "route": None,
            "status": 0,
            "usage_first": None,
            **fields,
        },
    )


def periodic(request_id: str = "running", **fields: object) -> Json:
    """A request that was still running when the line was written."""
    return chat_stream(request_id, **{"type": "DownstreamPeriodic", "usage_first": None, "sse_events": 7, **fields})


def failed_attempt(request_id: str = "chat-stream", **fields: object) -> Json:
    """An attempt that a provider answered with an error, as the router writes it."""
    return {
        "bytes_received": 656,
        "bytes_sent": 326,
        "cluster": "provider/openai",
        "duration_ms": 1,
        "host": "127.0.0.1:59235",
        "offering": "gpt-4o-mini openai=gpt-4o-mini-2024 azure=mini",
        "org_id": "org_demo",
        "own_reply": None,
        "request_id": request_id,
        "response_details": None,
        "response_flags": "-",
        "start_time": "2026-11-27T16:00:48.038123Z",
        "status": 500,
        "type": "UpstreamEnd",
        "v": 1,
        **fields,
    }


def render(written: Json) -> bytes:
    """The bytes of a line, without its newline."""
    return json.dumps(written, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
