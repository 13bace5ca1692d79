-- What a provider keeps for its owner under an id: responses and files. All tenants share our account there, so whose an id is, and
-- where, is known to billing_sink. Here: how requests name such things, the way to the one provider that keeps them, which ext_authz
-- names, and that billing_sink is told of what a provider keeps from then on, before the client is.

local json, errors, line = require("json"), require("errors"), require("line")

local byte, find, sub, format = string.byte, string.find, string.sub, string.format
local match, gmatch, gsub = string.match, string.gmatch, string.gsub
local tostring = tostring
local quoted, struct, scan_object, skip_space = line.quoted, line.struct, json.scan_object, json.skip_space
local QUOTE, BACKSLASH, COLON = json.QUOTE, json.BACKSLASH, json.COLON

local NULL = 110
local NAMESPACE, GRANT_NAMESPACE = "tollgate", "envoy.filters.http.ext_authz"
local ID_LENGTH_MAX = 128
local NAMES_MAX = 32              -- in one request
local ABOUT_BYTES_MAX = 16384     -- what a provider says of a file
local TRIES, TIMEOUT_MS = 2, 1000 -- in which billing_sink has to have written it down
local EVENTS_MAX = 4              -- of a stream, the first ones, in which it says its id
local UNASKED = "0"               -- the number of a question that has nothing to do with leases
-- Of what an organisation has, where a service of ours answers: by which route.
local OURS = {
  files = "models:", batch_create = "batches:", batches = "batches:", batch = "batches:", batch_cancel = "batches:",
}
local FORGETS = { response_delete = true, file_delete = true }
-- What else a request may ask for behind the path, beside the endpoints that take nothing there.
local QUERIES = {
  files = { limit = true, order = true, after = true, purpose = true },
  batches = { limit = true, after = true },
  response_input_items = { limit = true, order = true, after = true, before = true },
}
local NOTHING = {}
local ID_FIELDS, RESPONSE_FIELDS = { id = true }, { response = true }

-- Something kept as ext_authz is told of it, or nil if that is no id: plain characters alone, which mean nothing in a path.
local function name_of(kind, id)
  return #id <= ID_LENGTH_MAX and match(id, "^%w[%w_-]*$") and kind .. "/" .. id or nil
end

-- What stands between the quotation marks at a span, or nil if there are none.
local function text_at(s, first, last)
  return first and byte(s, first) == QUOTE and sub(s, first + 1, last - 1) or nil
end

-- The ids of the files that stand between first and last as values of `word`, put behind `names`. False if one is neither an id nor null,
-- or there are too many.
local function add_files(s, word, first, last, names)
  local i = find(s, word, first, true)
  while i and i <= last do
    if byte(s, i - 1) ~= BACKSLASH then
      local at, c = skip_space(s, i + #word)
      if c ~= COLON then return false end
      at, c = skip_space(s, at + 1)
      if c ~= NULL then
        local close = c == QUOTE and json.skip_string(s, at + 1)
        local name = close and name_of("file", sub(s, at + 1, close - 1))
        if not name or #names == NAMES_MAX then return false end
        names[#names + 1] = name
      end
    end
    i = find(s, word, i + 1, true)
  end
  return true
end

-- Whether all that a client asks for behind the path is offered there.
local function is_plain(endpoint, query)
  local names = QUERIES[endpoint] or NOTHING
  for part in gmatch(sub(query, 2), "[^&]+") do
    local name = match(part, "^(%l+)=[%w_-]+$")
    if not (name and names[name]) then return false end
  end
  return true
end

-- Has ext_authz asked about a request whose route hangs on the answer.
local function ask(h, known)
  h:headers():replace("x-tg-asked", UNASKED)
  h:streamInfo():dynamicMetadata():set(NAMESPACE, "request", known)
end

-- Puts back what stood behind the path, where it is offered; else returns false, and the request is refused.
local function keep_query(h, headers, known, query)
  if query == "" then return true end
  if not is_plain(known.endpoint, query) then
    errors.refuse(h, known, "400", "invalid_input", "There is something behind the question mark that is not offered here.")
    return false
  end
  headers:replace(":path", headers:get(":path") .. query)
  return true
end

-- Of a request that names something kept in its path, or is for a list, and has no body that anybody reads here.
local function on_request(h, headers, known, query)
  if keep_query(h, headers, known, query) then ask(h, known) end
end

-- Of a request that brings something to keep, which has been read.
local function on_upload(h, known)
  local headers = h:headers()
  local provider = headers:get("x-tollgate-provider")
  if provider and not match(provider, "^[a-z0-9][a-z0-9-]*$") then
    return errors.refuse(h, known, "400", "provider_not_offered", "The header 'x-tollgate-provider' is not a provider's name.")
  end
  known.provider, known.keeps = provider, true
  return ask(h, known)
end

-- Behind ext_authz: has the route chosen to the provider that it named. No pcall, as in front.lua: without a route there is no provider.
local function follow(h, request, grant)
  local headers = h:headers()
  if request.model then
    -- The body is as for any provider of the model: the script of the one's cluster prepares it, unless that is done.
    if grant.provider then
      headers:replace("x-tg-route", request.endpoint .. "@" .. grant.provider .. ":" .. request.model)
      h:clearRouteCache()
    end
    return
  end
  local ours = OURS[request.endpoint]
  headers:replace("x-tg-route", ours or request.mode == "test" and "test:kept" or "kept:" .. grant.provider)
  h:clearRouteCache()
  if ours then return end
  local prepared = h:metadata()
  local path = prepared:get(request.endpoint)
  if not path then return errors.refuse(h, request, "404", "not_found", "Unknown path or method.") end
  local id = request.named and match(request.named, "/(.*)") or ""
  local query = match(headers:get(":path"), "%?.*") or ""
  headers:replace(":path", (gsub(path, "{id}", id)) .. query)
  headers:replace("x-tg-prepared", prepared:get("cluster"))
end

-- Has billing_sink write down what the line of this request will say, and returns whether it has; without waiting for that if
-- `unawaited`.
local function tell(h, cluster, status, request, grant, kept, unawaited)
  if not cluster then return false end
  local text = '{"v":1,"type":"DownstreamEnd","start_time":' .. format("%.0f", h:timestamp()) .. ',"status":' .. status
    .. ',"cluster":' .. quoted(cluster) .. ',"request":' .. struct(request) .. ',"grant":' .. struct(grant)
    .. (kept and ',"kept":' .. quoted(kept) or "") .. "}"
  local headers =
    { [":method"] = "POST", [":path"] = "/kept", [":authority"] = "billing_sink", ["content-type"] = "application/json" }
  if unawaited then
    h:httpCall("billing_sink_kept", headers, text, TIMEOUT_MS, true)
    return true
  end
  for _ = 1, TRIES do
    local answer = h:httpCall("billing_sink_kept", headers, text, TIMEOUT_MS)
    if answer[":status"] == "204" then return true end
    if answer[":status"] == "409" then return false end
  end
  return false
end

-- The id of the object at i, if it is one, as the text of an object of its own.
local function id_text(s, i, kind)
  local first, last = {}, {}
  if not scan_object(s, i, ID_FIELDS, first, last) then return nil end
  local id = text_at(s, first.id, last.id)
  return id and name_of(kind, id) and '{"id":"' .. id .. '"}' or nil
end

-- What the line will say of what the answer s says is kept, or nil.
local function kept_text(request, s)
  if request.endpoint ~= "file_upload" then return id_text(s, 1, "response") end
  return #s <= ABOUT_BYTES_MAX and id_text(s, 1, "file") and s or nil
end

-- In the place of an answer whose id nobody would know to be the client's.
local function withhold(h)
  local text = errors.as_json(nil, nil, "503", "not_recorded",
    "The provider has kept this, but the gateway could not write down whose it is. Look for it in the list, or try again.")
  local body = h:body(true)
  local headers = h:headers()
  headers:replace(":status", "503")
  headers:replace("content-type", "application/json")
  headers:replace("content-length", tostring(body:setBytes(text)))
end

-- What there is to be done about an answer with 2xx, s if it has been read.
local function on_answer(h, cluster, status, request, s)
  local metadata = h:streamInfo():dynamicMetadata()
  local grant = metadata:get(NAMESPACE).lease or metadata:get(GRANT_NAMESPACE)
  local kept = kept_text(request, s)
  if kept then metadata:set(NAMESPACE, "kept", kept) end
  -- A response without an id is nobody's to ask for.
  if not kept and request.model then return end
  if not kept or not tell(h, cluster, status, request, grant, kept) then withhold(h) end
end

-- Of an answer with 2xx about something kept, of which nothing is counted.
local function on_response(h, cluster, status, request, grant)
  if FORGETS[request.endpoint] then
    -- Known to be gone in any case, once its line is read.
    tell(h, cluster, status, request, grant)
  elseif request.keeps then
    local body = h:body()
    local length = body and body:length() or 0
    on_answer(h, cluster, status, request, length > 0 and body:getBytes(0, length) or "")
  end
end

-- What to do with the events of a stream until one says its id: a function that is handed them and returns true once nothing is left to
-- be done. The stream does not wait: what it says first, a client cannot use before it ends.
local function on_events(h, cluster, status, request)
  local seen = 0
  return function(s, first, last)
    seen = seen + 1
    local data = find(s, "{", first, true)
    local outer_first, outer_last = {}, {}
    local kept
    if data and data < last and scan_object(s, data, RESPONSE_FIELDS, outer_first, outer_last) and outer_first.response then
      kept = id_text(s, outer_first.response, "response")
    end
    if kept then
      local metadata = h:streamInfo():dynamicMetadata()
      metadata:set(NAMESPACE, "kept", kept)
      tell(h, cluster, status, request, metadata:get(NAMESPACE).lease or metadata:get(GRANT_NAMESPACE), kept, true)
    end
    return kept ~= nil or seen == EVENTS_MAX
  end
end

return {
  name_of = name_of, add_files = add_files, text_at = text_at, ask = ask, keep_query = keep_query, on_request = on_request, on_upload = on_upload, follow = follow,
  on_answer = on_answer, on_response = on_response, on_events = on_events, OURS = OURS, UNASKED = UNASKED,
}
