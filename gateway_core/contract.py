"""Names that cross a process: headers, metadata and what stands in it, channels, services. `clusters.py`, `route_keys.py` and `spool_fields.py` have others.

A name written in Lua or in Envoy's configuration and read in Python stands here once; a test compares both sides. This
module holds names only, no behaviour beyond composing and splitting them.
"""

from enum import StrEnum
from typing import Final

GATEWAY_HEALTH_PATH: Final = "/readyz"
"""Where Envoy itself answers, to whoever asks, whether it serves: 200, or 503 while it drains."""


COST_PATH: Final = "/cost"
"""Where billing_sink tells Envoy what a request costs: a spool line comes, an amount in US dollars goes, as plain text."""

CACHE_HIT: Final = "response_cache"
"""Envoy's word (`response_details`) for what an answer of response_cache was."""

CACHE_WAIT_S_MAX: Final = 60
"""No request waits longer for another one whose answer would be its own."""

KEEP_PATH: Final = "/kept"
"""Where Envoy has billing_sink write down what a provider keeps from now on, or no longer, for whom: a spool line comes; 204, once it is
written."""


SESSIONS_SERVICE: Final = "tollgate.Sessions"
USE_METHOD: Final = "Use"
"""Where Envoy has ext_authz count tokens that a session has used (gRPC), and asks whether any are left: a JSON object with the fields of `UseField`
comes; nothing goes, or where the limits are used up an error as the client is told it."""

REQUEST_S_MAX: Final = 3000
"""Envoy ends a request that runs longer, so a hold that lives longer than this outlives its request."""

SESSION_S_MAX: Final = 3600
"""The same of a session."""


class Header:
    """Header names. `x-tg-*` are internal: removed from clients' requests on arrival and before a provider sees them."""

    REQUEST_ID: Final = "x-request-id"
    ROUTE: Final = "x-tg-route"
    PREPARED: Final = "x-tg-prepared"
    ASKED: Final = "x-tg-asked"
    """From the front filter to itself, on requests that ext_authz is asked about: the number of the question; 0 for one that has nothing to
    do with leases: its route hangs on the answer, or it is a session."""
    CLIENT_REQUEST_ID: Final = "x-tg-client-request-id"
    CONTENT_TYPE: Final = "x-tg-content-type"
    """What the client says of its body, for the front filter alone; on the way to a provider it is what that has read."""
    CLIENT_ADDRESS: Final = "x-tg-client-address"
    """For ext_authz alone: where the request comes from, where a trusted proxy may be in between. Absent without any."""
    INTERNAL_PREFIX: Final = "x-tg-"
    AUTHORIZATION: Final = "authorization"
    API_KEY: Final = "x-api-key"
    MAX_TOKENS: Final = "x-tollgate-max-tokens"
    """Tells the client that its answer was cut down, and to how many tokens."""
    COST: Final = "x-tollgate-cost"
    """Of a request, `true`: tell me what it costs. Of an answer: what it costs, in US dollars."""
    CLUSTER: Final = "x-tg-cluster"
    """On the answer to a request that asks what it costs, for the front filter alone: the cluster that answered."""
    CACHE: Final = "x-tollgate-cache"
    """Of a request, `on` or `off`: whether its answer may be a cached one, whatever the route says. Of an answer: a value of `CacheOutcome`."""
    CACHE_ASKED: Final = "x-tg-cache-asked"
    """From the front filter to the cache's, `true` on requests whose answer may be a cached one."""
    KEPT_AT: Final = "x-tg-kept-at"
    """On the answer of a provider that may keep something, for the front filter alone: the cluster that answered."""
    PROJECT_ID: Final = "x-tg-project-id"
    KEY_ID: Final = "x-tg-key-id"
    MODE: Final = "x-tg-mode"
    """Like the two before, and `ORG`, on the way to billing_sink: what ext_authz has decided about a request that is about batches."""
    TAGS: Final = "x-tollgate-tags"
    """Of a request: what its costs are told apart by, as `team=search,stage=test`; in the place of the body's `metadata`."""
    PROVIDER: Final = "x-tollgate-provider"
    """Of a request that has something kept and names no model: at which provider."""
    PROVIDER_CLUSTER: Final = "x-tg-provider-cluster"
    """Between the two passes of a translated attempt: the cluster of the provider that is asked."""
    TRANSLATE: Final = "x-tg-translate"
    """There, too: the dialects of client and provider, with a slash between."""
    CHAT_FIELDS: Final = "x-tg-chat-fields"
    """There, too: the provider's names for fields of a chat, as `seed=random_seed,user=`; no name where it refuses the field."""
    LIMITED: Final = "x-tg-limited"
    """Between the two passes of an attempt with our own credential: the provider, if it may be full; ext_authz is asked whether it is, and
    told the next three."""
    ENVOY: Final = "x-tg-envoy"
    """There, too: which Envoy it is."""
    ORG: Final = "x-tg-org"
    """There, too: whose request it is. And on a provider's answer, for the log of attempts alone: the router's log sees answers and none of
    the request's metadata. Of a request that goes to billing_sink: whose that is."""
    EXPECTED_TOKENS: Final = "x-tg-expected-tokens"
    """There, too: `GrantField.EXPECTED_TOKENS`; absent where the grant has none."""
    OWN_REPLY: Final = "x-tg-own-reply"
    """On what Envoy itself answers behind a listener inside it: with which response flags. It is in the client's form already."""
    OWN_KEY: Final = "x-tg-own-key"
    """On the answer to an attempt with an organisation's own key, for the front filter alone: `true`."""
    UNTRANSLATABLE: Final = "x-tg-untranslatable"
    """On an answer of the translator: the request cannot be put to this provider; another one may be asked."""
    LIMITS: Final = "x-tg-limits"
    """On a provider's answer, for the log of attempts alone: what it says of its limits, as `gateway_core.provider_limits` packs it."""
    DROPPED: Final = "x-tollgate-dropped"
    """Tells the client which fields of its request the provider was not told, with commas between."""
    TOLLGATE_PREFIX: Final = "x-tollgate-"
    """Between the client and us; none of a provider's business."""
    RATE_LIMIT_PREFIX: Final = "x-ratelimit-"
    """What a key has left of its limits, in OpenAI's names: `limit`, `remaining` and `reset`, each of `requests` and `tokens`."""
    SHOULD_RETRY: Final = "x-should-retry"
    """Read by the official SDKs: `false` stops them from repeating a request that cannot succeed."""


KEY_HEADERS: Final = (Header.AUTHORIZATION, Header.API_KEY, "x-goog-api-key")
"""Headers in which a client shows its key."""
KEY_PARAMETER: Final = "key"
"""Of the query, in Gemini's dialect."""

CREDENTIAL_HEADERS: Final = (
    *(*KEY_HEADERS, "api-key", "x-amz-security-token"),
    *("proxy-authorization", "cookie"),
)
"""Headers that may hold a credential: never shown, and never handed on from who sent them."""


class Metadata:
    """Dynamic metadata: which namespace, and the keys in it."""

    NAMESPACE: Final = "tollgate"
    """Written by `envoy/lua/request.lua`, with what it requires, and `response.lua`."""
    REQUEST: Final = "request"
    """A struct with the fields of `RequestField`."""
    PLAN: Final = "plan"
    """What upstream.lua may have to write over in the forwarded body, as spans `first,last`, 1-based and inclusive, with spaces
    between: of the model (with a `=` in front in a form, where it is bare text), then of each bound on the output, or in its place `+` and the name of the field that is to be one. One with
    a `-` in front is of the stream options that we put in, for a provider that does not take them."""
    LEASE: Final = "lease"
    """A struct with the fields of `GrantField`: the grant that a request passes with which ext_authz is not asked about, since what
    it was asked before covers this too. Its presence is what keeps the question from being asked."""
    PASSES: Final = "passes"
    """Of a request that ext_authz was asked about: how many of the two front filters are through with its answer, from 1 on."""
    USAGE_FIRST: Final = "usage_first"
    USAGE_LAST: Final = "usage_last"
    """Raw JSON text of the provider's usage object: the first one seen, and the last one when there were several.

    Of a session, the first one is all: the sums of its usage objects, of responses and of transcriptions, and how many there were."""
    SERVICE_TIER: Final = "service_tier"
    """What the answer says at its top level of the tier it was served at."""
    KEPT: Final = "kept"
    """JSON text of what the provider keeps from now on: of a file all that it says of it, of a response the id."""
    SSE_EVENTS: Final = "sse_events"
    """Server-sent events delivered so far; comments are none."""
    SSE_BESIDE_BYTES: Final = "sse_beside_bytes"
    """Bytes of a stream that are no output: comments, and of a response all events that are no delta. Absent where there are none."""
    UNFINISHED: Final = "unfinished"
    """Of a session: JSON text with the fields of `UnfinishedField`, of what has begun to come and has no usage yet; absent, or an empty object, where
    there is nothing."""
    COUNTED_TOKENS: Final = "counted_tokens"
    """Of a session: as how many tokens ext_authz counts it by now, as a number. Absent as long as those are the reserved ones."""
    OWN_KEY_ORG: Final = "own_key_org"
    """Of a request that is sent with its organisation's own key somewhere: the organisation, for a cluster that all such share."""
    CACHE: Final = "cache"
    """What response_cache says of a request that it was asked about: a value of `CacheOutcome`."""
    TRANSLATED: Final = "translated"
    """Whether this is the second pass of an attempt whose body the first one has prepared and the translator has made anew."""
    ORDER_NAMESPACE: Final = "tollgate.order"
    """Written by `envoy/lua/choice.lua`, for requests whose providers are tried in an order of their own, and by `own_keys.lua`."""
    PRIORITY_GROUPS: Final = "priority_groups"
    """The order in that namespace; Envoy's own name for it, as are the names inside."""
    GRANT_NAMESPACE: Final = "envoy.filters.http.ext_authz"
    """Written by ext_authz, with the fields of `GrantField`; the namespace is the filter's own."""
    ATTEMPT_NAMESPACE: Final = "envoy.filters.http.ratelimit"
    """Written by ext_authz between the two passes of an attempt, with the fields of `AttemptCount`; the namespace is the filter's own."""


class RequestField:
    """What the front filter read from the request: keys of the struct `Metadata.REQUEST`."""

    ENDPOINT: Final = "endpoint"
    MODEL: Final = "model"
    STREAM: Final = "stream"
    BODY_BYTES: Final = "body_bytes"
    MAX_OUTPUT_TOKENS: Final = "max_output_tokens"
    CHOICES: Final = "choices"
    UNITS: Final = "units"
    """How many of what its endpoint deals in the request has: pictures it asks for, characters it wants to hear, inputs, prompts or
    documents of a list. Absent where an endpoint deals in none of it."""
    FILES: Final = "files"
    """How many files a form brings; absent where the body is JSON."""
    FILE_BYTES: Final = "file_bytes"
    """How long they are together, of `BODY_BYTES`."""
    QUERY_BYTES: Final = "query_bytes"
    """Length of the query that a reranking reads with each document. Absent on other endpoints."""
    LEAST_OUTPUT_TOKENS: Final = "least_output_tokens"
    """Below which the provider refuses: more than the tokens of thinking it is told to; absent if it is told of none."""
    SERVICE_TIER: Final = "service_tier"
    """What the client asked for; absent when it asked for nothing."""
    WEB_SEARCH: Final = "web_search"
    """Whether the body names a search that the provider makes."""
    METERS: Final = "meters"
    """Names of the meters that the request asks for by itself, such as a search or an answer in audio, with commas between; absent if
    there are none."""
    REFERENCES: Final = "references"
    """Whether the body names images, files or documents that are not in it."""
    HIDE_USAGE: Final = "hide_usage"
    """Whether the usage chunk of a stream was our idea and is hidden from the client."""
    CLIENT_REQUEST_ID: Final = "client_request_id"
    TAGS: Final = "tags"
    """What costs are told apart by, as it came: the text of the header, or the object `metadata` of the body as JSON. Absent without either."""
    USER: Final = "user"
    """The string `user` of the body, as JSON."""
    NAMED: Final = "named"
    """What the request names that a provider keeps, as `gateway_core.kept.KeptName`, with commas between; absent where nothing is."""
    KEEPS: Final = "keeps"
    """Whether the provider is to keep something under an id that its answer says. Absent where it is not."""
    PROVIDER: Final = "provider"
    """Where the client wants that to be kept; absent where it says nothing of it."""
    MODE: Final = "mode"
    """Of the key that was brought, by its prefix: a value of `gateway_core.mode.Mode`. The route was chosen by it."""
    OFFERING: Final = "offering"
    """What the chosen route stands for: a `gateway_core.offering.Offering` as text. Absent where it leads to no provider."""
    CHOICE: Final = "choice"
    """Why the provider that is tried first is: a value of `Choice`. Absent where it was drawn by weight, or where none was chosen."""
    REQUEST_ID: Final = "request_id"
    """Only where an error says it in its body, and of a session: who words one later has no other way to know it."""
    LEASE_WANTED: Final = "lease_wanted"
    """Whether the front filter would keep a lease: it asks for one at a time for requests of one shape. Absent where it asks nothing."""
    UNSPENT: Final = "unspent"
    """What is given back of leases, with commas between: `id:uses`. Absent where nothing is."""
    OWN_KEYS_AS_OF: Final = "own_keys_as_of"
    """Up to which change of organisations' own keys Envoy's configuration has come. Absent where the route leads to no provider that
    allows any."""
    CACHE: Final = "cache"
    """Who wants its answer to be a cached one, a value of `CacheWish`; absent where nobody does."""
    CACHE_TTL_S: Final = "cache_ttl_s"
    """For how long, as the route says; absent where it does not."""
    ERROR_CODE: Final = "error_code"
    """The `code` of a refusal by the front filter, beside what it had read by then."""


class RouteField:
    """What a route tells the scripts: keys of its metadata under the name of a filter."""

    OFFERING: Final = "offering"
    """For the front filter, which hands it on as `RequestField.OFFERING`, and for the log of attempts."""
    CLUSTER: Final = "cluster"
    """Only for the front filter: the cluster it may prepare the body for."""
    PATH: Final = "path"
    MODEL: Final = "model"
    """Absent where the model keeps its name."""
    CACHE_TTL_S: Final = "cache_ttl_s"
    """Only for the front filter: how long answers are cached, 0 for never. Absent where only the client's wish counts."""
    OUTPUT_BOUND: Final = "output_bound"
    """Only for a cluster's own script: the one field in which its provider takes a bound on the output of a chat, if it knows one only."""
    REFUSES_STREAM_OPTIONS: Final = "refuses_stream_options"
    """Only for a cluster's own script, and there only where it is so."""
    HEADERS: Final = "headers"
    """Only for a cluster's own script: the names of all headers that providers of the route are configured with, with spaces between. Absent
    where there is one provider, or no such header."""
    CHAIN: Final = "chain"
    """Only for the front filter, in front of ext_authz and behind it, and only where a provider allows organisations their own keys: the
    groups that are tried, written as `MEMBERS`."""
    OWN_KEYS_AS_OF: Final = "own_keys_as_of"
    """Of the virtual host, for the front filter, which hands it on as `RequestField.OWN_KEYS_AS_OF`."""

    CHOICE: Final = "choice"
    """Only for the front filter: the value of `Choice` that its strategy is; absent where Envoy draws by weight."""
    STICKY_BY: Final = "sticky_by"
    """Only for the front filter: which value of a request keeps it to one provider; absent where none does."""
    MEMBERS: Final = "members"
    """Only for the front filter, where each request has an order of its own: the clusters of the route with their weights, as `cluster=weight`
    with spaces between those of a group and semicolons between groups."""


class Choice(StrEnum):
    """Why a request tries the provider first that it does. What orders a route's providers for all requests alike is called the same."""

    WEIGHTED = "weighted"
    ROUND_ROBIN = "round_robin"
    LOWEST_COST = "lowest_cost"
    LOWEST_LATENCY = "lowest_latency"
    TRIAL = "trial"
    """On a route that goes by latency: another one than the fastest, to see whether it still is."""
    STICKY = "sticky"


class GrantField:
    """What ext_authz decided: keys of the struct under `Metadata.GRANT_NAMESPACE`."""

    ORG_ID: Final = "org_id"
    PROJECT_ID: Final = "project_id"
    KEY_ID: Final = "key_id"
    MODEL: Final = "model"
    """The model's own name, whichever of its names the request has."""
    MODE: Final = "mode"
    """Of the key: which ledger the request belongs to."""
    PROVIDER: Final = "provider"
    """The one that keeps what the request names, or is to keep what it brings: the only one it goes to. Absent elsewhere, and of a test
    request, which goes to the simulator."""
    RATED_AS: Final = "rated_as"
    """Of a test request: the provider whose prices it is charged by, since none of them serves it."""
    PRICE_VERSION: Final = "price_version"
    HOLD_NANO_USD: Final = "hold_nano_usd"
    """Decimal text, because a metadata number is a double. Absent when nothing was held."""
    TOKENS_MAX: Final = "tokens_max"
    """What the model can read and write at once for the request, whatever that asked for; decimal text for the same reason."""
    INPUT_TOKENS_MAX: Final = "input_tokens_max"
    """What is held for of input, where the request names what is not in it; decimal text for the same reason. Absent elsewhere."""
    MAX_TOKENS: Final = "max_tokens"
    """What each answer is cut down to, because no more is held; decimal text for the same reason. Absent where it is not."""
    SESSION: Final = "session"
    """A struct with the fields of `SessionField`, by which what is held for a session is counted down. Absent elsewhere."""
    SLICE_ID: Final = "slice_id"
    """What that amount was taken from; absent when the request has a hold of its own."""
    RESERVED_FOR: Final = "reserved_for"
    """Against what the request counts (`gateway_core.limits.tallies_as_text`). Absent where nothing limits it, like the next two."""
    RESERVED_TOKENS: Final = "reserved_tokens"
    """What the request counts as until it is over; decimal text."""
    TOKENS_PER_MINUTE: Final = "tokens_per_minute"
    """Of a session: how many tokens per minute each tally of `RESERVED_FOR` may use, in its order with spaces between, `-` where that is not
    limited. Absent where none is."""
    RESERVED_AT: Final = "reserved_at"
    """The second in which it counts, by the clock of who counts; decimal text. Its presence has Envoy tell ext_authz of the end."""
    EXPECTED_TOKENS: Final = "expected_tokens"
    """What it will use, before anybody knows, where a provider that may serve it has a limit of tokens; decimal text. Its presence has
    Envoy tell ext_authz what it did use."""
    OWN_KEYS: Final = "own_keys"
    """The providers where the request is sent with its organisation's own key, with spaces between; a `+` behind one where ours is tried
    when that is refused. Absent where there are none."""
    RATE_LIMITS: Final = "rate_limits"
    """What is left of the limits, in the grant of a lease: a struct, by the names of the headers without their beginning."""
    LEASE_ID: Final = "lease_id"
    """What it may be spent by, with the fields below; absent where the grant is for one request alone. Kept in the grants that come from it."""
    LEASE_USES: Final = "lease_uses"
    """How many more requests may pass with this grant, of the same shape and with the bounds below. A number, like those below."""
    LEASE_TTL_MS: Final = "lease_ttl_ms"
    """For how long, since the question was asked."""
    LEASE_BODY_BYTES: Final = "lease_body_bytes"
    """How long their bodies may be."""
    LEASE_MAX_OUTPUT_TOKENS: Final = "lease_max_output_tokens"
    """What they have to be bounded by themselves; absent where they need not be."""
    ERROR_CODE: Final = "error_code"
    """The `code` of the refusal; absent when admitted."""


class AttemptCount:
    """As what an attempt counts at a provider that may be full: keys of the struct under `Metadata.ATTEMPT_NAMESPACE`."""

    PROVIDER: Final = "provider"
    ENVOY: Final = "envoy"
    """Which one makes it: each may have so many at once."""
    ATTEMPT_ID: Final = "attempt_id"
    """Its presence has Envoy tell ext_authz that the attempt is over."""
    TOKENS: Final = "tokens"
    """Decimal text."""


class SessionField:
    """What a session costs at most, as numbers in nano-USD, in whatever it is charged by."""

    RESPONSE: Final = "response"
    """One response that reads and writes as much as the model can."""
    INPUT: Final = "input"
    """A million tokens that it reads and that came from no cache, as all below are of a million."""
    CACHED_INPUT: Final = "cached_input"
    OUTPUT: Final = "output"
    AUDIO_SECOND: Final = "audio_second"


class UnfinishedField:
    """What a session has delivered that no usage of the provider's tells of, and what was read for that: keys of `Metadata.UNFINISHED`, whole numbers."""

    RESPONSES: Final = "responses"
    """That have begun and not ended."""
    PIECES: Final = "pieces"
    """Of text that have come of them: words, transcripts of what is heard, arguments."""
    AUDIO_BYTES: Final = "audio_bytes"
    """Of sound that has come of them, in base64."""
    CONTEXT_TOKENS: Final = "context_tokens"
    """What the last response that has ended read and wrote: each that follows reads it again."""
    TEXT_BYTES_SENT: Final = "text_bytes_sent"
    """By the client since the last usage, like the next two, in events that a model reads."""
    IMAGE_BYTES_SENT: Final = "image_bytes_sent"
    AUDIO_BYTES_SENT: Final = "audio_bytes_sent"
    """In base64, less what the provider has taken for silence."""
    TRANSCRIPTION_PIECES: Final = "transcription_pieces"
    """That have come of transcriptions that have not ended."""
    AUDIO_BYTES_HEARD: Final = "audio_bytes_heard"
    """Of sound that the client has sent since the last transcription, in base64."""
    IS_TELEPHONE: Final = "is_telephone"
    """Whether the sound is G.711 (true or false), and not PCM."""


class UseField:
    """What Envoy tells of tokens that a session has used."""

    ORG_ID: Final = "org_id"
    RESERVED_FOR: Final = "reserved_for"
    TOKENS_PER_MINUTE: Final = "tokens_per_minute"
    """Both as in the grant."""
    TOKENS: Final = "tokens"
    """A number: used since it was told last."""
    RESERVED_TOKENS: Final = "reserved_tokens"
    """A number: counted for it beforehand and not used yet."""


class CacheWish(StrEnum):
    """Who wants an answer to be a cached one."""

    CLIENT = "client"
    """By its header, whatever the request is."""
    ROUTE = "route"
    """For requests that will be answered alike each time."""


class CacheOutcome(StrEnum):
    """Where the answer to a request came from that might have been a cached one."""

    HIT = "hit"
    MISS = "miss"


class Channel:
    """Postgres NOTIFY channels. The payload says what changed; a listener that missed one reloads on reconnect."""

    CATALOG: Final = "catalog_changed"
    """Payload: the new catalogue revision."""
    API_KEY: Final = "api_key_changed"
    """Payload: the number of the change, a colon, and what has changed: the hex of every hash a key has or had, with commas
    between, or the id of an organisation or a project for all of its keys.

    Numbers are committed, and so heard, in their order; what one transaction changes has one number.
    """

    UNSPENT: Final = "leases_unspent"
    """Payload: what Envoy gave back to a process of ext_authz that had not lent it, as `RequestField.UNSPENT` has it."""
    AUTHORIZER: Final = "authorizer_changed"
    """Payload: the catalogue revision that a process of ext_authz serves from now on."""
    ATTEMPTS: Final = "attempts_recorded"
    """No payload: attempts have failed, or a provider has told of its limits."""
    PROVIDER_STATES: Final = "provider_states_changed"
    """No payload: a provider, or a model at one, gets requests again, or gets none any more."""


class Peer(StrEnum):
    """Who speaks on a connection between Envoy and a service of ours: the name in its certificate, whatever host it is on."""

    ENVOY = "envoy"
    CONTROL_PLANE = "control_plane"
    EXT_AUTHZ = "ext_authz"
    BILLING_SINK = "billing_sink"
    TRANSLATOR = "translator"
    RESPONSE_CACHE = "response_cache"


class InspectionFailure(StrEnum):
    """Why an inspection of the books that was asked for has not been made: from the sink to the control plane, in Postgres."""

    CLICKHOUSE_UNREACHABLE = "clickhouse_unreachable"


class Service(StrEnum):
    """Who connects to Postgres."""

    CONTROL_PLANE = "control_plane"
    EXT_AUTHZ = "ext_authz"
    BILLING_SINK = "billing_sink"


class BootstrapSecret:
    """Names under which `envoy/bootstrap.yaml` holds what Envoy is known by; the control plane sends the names and no more."""

    IDENTITY: Final = "envoy_identity"
    AUTHORITY: Final = "envoy_authority"


def database_role(service: Service) -> str:
    """The Postgres role as which a service works, whoever logs in; each schema's `rights.sql` says what it may."""
    return f"tollgate_{service}"


CACHE_KEYS: Final = "tollgate:{cache}:"
"""What the names of all cached answers in Redis begin with, and of what belongs to them; the part in braces holds them together in a cluster."""


ANSWER_HEADERS: Final = ("anthropic-", "groq-", "openai-", "x-openrouter-")
"""What the names of those headers of a request begin with by which a provider is asked for another answer: versions and betas. Requests that
differ in them are two questions."""


def cache_generation(org_id: str) -> str:
    """The key in Redis whose number an organisation's cached answers bear: raised, there are none any more."""
    return f"{CACHE_KEYS}generation:{org_id}"
