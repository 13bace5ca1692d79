-- The request side of front.lua, in order: which endpoint and whether there is a key (paths.lua), the body (reading.lua; bodies.lua has what
-- is special about single endpoints), the route by model (for a test key: the endpoint's test route, whatever the model), the body as the first
-- provider of the chain gets it (choice.lua, preparation.lua), what admission has to know (extent.lua), and a lease if there is one (leases.lua).

local edits_of_text, errors, bodies, extent = require("edits"), require("errors"), require("bodies"), require("extent")
local leases, paths, preparation, reading = require("leases"), require("paths"), require("preparation"), require("reading")
local cache, choice = require("cache"), require("choice")
local kept, own_keys, realtime, tags = require("kept"), require("own_keys"), require("realtime"), require("tags")

local find, sub, lower, tostring = string.find, string.sub, string.lower, tostring
local refuse = errors.refuse

local NAMESPACE = "tollgate"

-- The request's own id at the client's, which is only kept. Metadata takes plain text only.
local function take_client_request_id(headers, known)
  local id = headers:get("x-tg-client-request-id")
  if not id then return end
  headers:remove("x-tg-client-request-id")
  if not find(id, "[^!-~]") then known.client_request_id = id end
end

-- The path without what a client adds, which is for nobody: a provider may take it for a credential or a wish; and that.
local function take_query(headers)
  local path = headers:get(":path")
  local asks = find(path, "?", 1, true)
  if not asks then return path, "" end
  local bare = sub(path, 1, asks - 1)
  headers:replace(":path", bare)
  return bare, sub(path, asks)
end

-- The text of the body, as a handle and a string; nil if it is refused.
local function body_of(h, known, kind, headers, query)
  -- A body that is packed could not be read.
  local encoding = headers:get("content-encoding")
  if encoding and lower(encoding) ~= "identity" then
    return refuse(h, known, "415", "unsupported_media_type", "Send the body as it is, without a content encoding.")
  end
  if known.endpoint == "stream_generate" and not find(query .. "&", "[?&]alt=sse&") then
    return refuse(h, known, "400", "stream_required", "Streams are offered as events only: ask with ?alt=sse.")
  end
  local body = h:body()
  local length = body and body:length() or 0
  if length == 0 then
    return refuse(h, known, "400", kind.files and "invalid_form" or "invalid_json", "A body is required: JSON, or a form where that is asked.")
  end
  return body, body:getBytes(0, length)
end

-- Has the route chosen by endpoint and model, the provider that is tried first where the route leaves that to the request, and the path
-- prepared where the first attempt is certain. The route stays chosen from here on: what it stands for is what ext_authz decides by and what
-- is served. A session has no body. Returns the route, the model's name there, its chain and how long answers are kept;
-- nothing if it is refused.
local function choose(h, headers, known, is_form, s, read)
  local model, is_test = known.model, known.mode == "test"
  local route = is_test and "test:" .. known.endpoint or known.endpoint .. ":" .. model
  headers:replace("x-tg-route", route)
  h:clearRouteCache()
  -- Metadata of the chosen route under this filter's name.
  local prepared = h:metadata()
  known.offering = prepared:get("offering")
  local chain = prepared:get("chain")
  known.own_keys_as_of = own_keys.as_of(h, chain)
  local cluster = prepared:get("cluster")      -- only if attempt 1 is certain, or likely
  if is_test and not cluster then
    return refuse(h, known, "403", "test_mode_unavailable",
      "Test keys cannot be used here: this gateway has no simulator. Use a live key.")
  end
  local upstream_model, path = cluster and prepared:get("model") or model, cluster and prepared:get("path")
  local strategy = prepared:get("choice")
  if strategy then
    local tried_first
    tried_first, known.choice = choice.make(h, route, strategy, prepared, is_form, s, read)
    if tried_first and tried_first ~= cluster then cluster, upstream_model = nil, model end
  end
  if cluster then
    headers:replace(":path", edits_of_text.path_for(path, upstream_model))
    headers:replace("x-tg-prepared", cluster)
  end
  return is_test and route .. ":" .. model or route, upstream_model, chain, prepared:get("cache_ttl_s")
end

-- The greatest of the bounds that the client gave its output, or nil.
local function bound_of(kind, numbers)
  local greatest
  for i = 1, #kind.bounds do
    local bound = numbers[kind.bounds[i]]
    if bound and (not greatest or bound > greatest) then greatest = bound end
  end
  return greatest
end

-- Lets the request pass on a lease, or has ext_authz asked. Where something is kept that it names, no lease says. What admission looks at is in `known` by now, and whole.
local function admit(h, headers, known, shape, chain)
  if known.named then return kept.ask(h, known) end
  local grant = leases.spend(shape, known)
  if grant then
    h:streamInfo():dynamicMetadata():set(NAMESPACE, "lease", grant)
    if grant.own_keys then own_keys.follow(h, grant, chain) end
    return
  end
  local number
  number, known.lease_wanted, known.unspent = leases.ask(shape, known)
  headers:replace("x-tg-asked", number)
end

-- A session has no body, and no lease: it may last an hour. What the client sends then is followed here, what the provider sends by the same
-- filter behind ext_authz.
local function on_session(h, headers, known, query)
  local status, code, message, param = realtime.read_handshake(headers, known, query)
  if status then return refuse(h, known, status, code, message, param) end
  if not choose(h, headers, known) then return end
  kept.ask(h, known)
  realtime.follow_client(h, known.request_id)
end

local function on_request(h)
  local headers = h:headers()
  local known = {}                 -- what the log line is told of the request
  take_client_request_id(headers, known)
  tags.take_header(headers, known)
  local path, query = take_query(headers)
  known.endpoint, known.model, known.named = paths.endpoint_of(headers, path, query)
  if not known.endpoint then return refuse(h, known, "404", "not_found", "Unknown path or method.") end
  local is_session = known.endpoint == "realtime"
  if is_session then
    realtime.take_headers(headers)
  elseif realtime.is_upgrade(headers) then
    return refuse(h, known, "400", "bad_request", "This is no WebSocket.")
  end
  local credential
  known.mode, credential = paths.mode_of(headers)
  if not known.mode then
    return refuse(h, known, "401", "invalid_api_key",
      "No valid API key was given. Send it as 'Authorization: Bearer ...' or 'x-api-key: ...'.")
  end
  if known.endpoint == "models" or known.endpoint == "model" then
    headers:replace("x-tg-route", "models:")
    h:clearRouteCache()
    h:streamInfo():dynamicMetadata():set(NAMESPACE, "request", known)
    return
  end
  if is_session then return on_session(h, headers, known, query) end

  if known.named or (kept.OURS[known.endpoint] and not bodies[known.endpoint]) then return kept.on_request(h, headers, known, query) end
  local kind = bodies[known.endpoint]
  if kind.is_anthropic then known.request_id = headers:get("x-request-id") end
  local body, s = body_of(h, known, kind, headers, query)
  if not body then return end
  local read
  if kind.files then
    read = reading.form_of(h, known, kind, s)
  else
    read = reading.json_of(h, known, kind, s)
  end
  if not read then return end
  local model, first, last, numbers = known.model, read.first, read.last, read.numbers
  if kind.look then
    local code, message, param = kind.look(known, numbers, s, first, last)
    if code then return refuse(h, known, "400", code, message, param) end
  end
  if known.endpoint == "batch_create" then return kept.ask(h, known) end
  if not known.model then return kept.on_upload(h, known) end
  local edit, hide_usage, is_ours = nil, false, false
  if known.stream and kind.tells_usage_if_asked then
    local problem
    edit, hide_usage, is_ours, problem = preparation.ask_for_usage(s, read.close, first, last)
    if problem then return refuse(h, known, "400", "invalid_json", problem, "stream_options") end
  elseif kind.is_kept_unless_told then
    edit = preparation.store_nothing(s, read.close, first, last)
  end

  headers = h:headers()            -- handles taken before body() are stale
  local route, upstream_model, chain, cache_ttl_s = choose(h, headers, known, kind.files ~= nil, s, read)
  if not route then return end

  local mark = first.model and { first.model, last.model, kind.files and upstream_model or '"' .. upstream_model .. '"' }
  local edits = { mark, edit }
  known.body_bytes = #s
  if edit or (mark and upstream_model ~= model) then
    known.body_bytes = body:setBytes(edits_of_text.apply(s, edits))
    headers:replace("content-length", tostring(known.body_bytes))
  end

  if not cache.ask(h, headers, known, s, cache_ttl_s) then return end

  known.hide_usage = hide_usage
  known.references = not kind.files and (known.references or extent.has_references(s))
  known.web_search = known.references and extent.may_search(s)
  known.meters = known.meters or kind.bound and extent.asked_meters(s, known.endpoint, first, last) or nil
  known.max_output_tokens = known.max_output_tokens or bound_of(kind, numbers)
  known.least_output_tokens = known.endpoint == "messages" and extent.least_output_tokens(s, first, last) or nil
  admit(h, headers, known, leases.shape_of(credential, route, known), chain)
  local metadata = h:streamInfo():dynamicMetadata()
  metadata:set(NAMESPACE, "request", known)
  metadata:set(NAMESPACE, "plan",
    preparation.plan_of(known.endpoint, kind, numbers, first, last, mark, is_ours and edit or nil, edits))
end

return { on_request = on_request }
