-- Upstream filter of a cluster: prepares the body for an attempt that request.lua did not prepare (a retry, a chain whose first
-- provider is drawn by weight, one that does not take what others do, an answer that admission has cut down). Envoy skips it when x-tg-prepared names this cluster.
-- In the second pass of a translated attempt there is nothing left to prepare.
--
-- Every attempt is given the body request.lua forwarded, but headers are one map shared by all attempts: so path, length, model
-- and the bounds on the output are always set anew, and what providers are configured with is removed: the cluster adds its own behind this. The parameters are metadata of the route under this filter's own name, so no
-- header carries them and none can leak.

local sub, byte, match, gmatch, format = string.sub, string.byte, string.match, string.gmatch, string.format
local tonumber, tostring, pcall = tonumber, tostring, pcall
local edits_of_text = require("edits")
local apply, path_for = edits_of_text.apply, edits_of_text.path_for
local errors = require("errors")

local NAMESPACE = "tollgate"
local GRANT_NAMESPACE = "envoy.filters.http.ext_authz"
local QUOTE = 34
local NEWER_BOUND = '"max_completion_tokens"'

-- The smaller of two numbers, either of which may be nil.
local function smaller(a, b)
  return a and (not b or a < b) and a or b
end

-- The edit that gives the name of an older field to the one whose value begins at i, if that is the newer bound on the output.
local function renamed(s, i, name)
  local last = i - 1
  while byte(s, last) ~= QUOTE do last = last - 1 end     -- a colon and spaces
  local first = last - #NEWER_BOUND + 1
  if sub(s, first, last) == NEWER_BOUND then return { first, last, '"' .. name .. '"' } end
end

-- Adds the edits that bound the output: by no more than max_tokens, unless that is nil, in the fields whose values stand at spans,
-- or, where none does, in the field that is to be put in behind the model. A provider that knows one field only (`only`) is told
-- in that one.
local function bound_output(s, edits, spans, absent, only, max_tokens)
  if max_tokens and not absent and not spans[1] then error("the plan does not say where the output is bounded") end
  if absent and max_tokens and not (only and spans[1]) then
    edits[1][3] = format('%s,"%s":%d', edits[1][3], only or absent, max_tokens)
  end
  local asked
  for i = 1, #spans do
    local own = tonumber(sub(s, spans[i][1], spans[i][2]))
    if own and (not asked or own > asked) then asked = own end
  end
  for i = 1, #spans do
    local first, last = spans[i][1], spans[i][2]
    local own, bound = tonumber(sub(s, first, last)), nil
    if own then
      bound = max_tokens and smaller(own, max_tokens)
    elseif only then
      bound = smaller(asked, max_tokens)
    elseif i == 1 and not asked and not absent then
      bound = max_tokens
    end
    if bound then edits[#edits + 1] = { first, last, format("%d", bound) } end
  end
  if only and #spans == 1 then edits[#edits + 1] = renamed(s, spans[1][1], only) end
end

-- The edits {first, last, text} that make of the forwarded body what a provider is to be sent: another name for the model, unless
-- that is nil, no stream options of ours if it refuses them, and what bound_output adds.
local function edits_of(s, plan, model, refuses_options, only, max_tokens)
  local edits, spans, absent = {}, {}, nil
  for sign, part in gmatch(plan, "([=+-]?)(%S+)") do
    local first, last = match(part, "^(%d+),(%d+)$")
    first, last = tonumber(first), tonumber(last)
    if sign == "+" then
      absent = part
    elseif sign == "-" then
      if refuses_options then edits[#edits + 1] = { first, last, "" } end
    elseif not edits[1] then
      local name = model and (sign == "=" and model or '"' .. model .. '"')
      edits[1] = { first, last, name or sub(s, first, last) }
    else
      spans[#spans + 1] = { first, last }
    end
  end
  bound_output(s, edits, spans, absent, only, max_tokens)
  return edits
end

-- Removes the headers of these names, with spaces between, which an attempt before this one may have been given.
local function forget(headers, names)
  for name in gmatch(names or "", "%S+") do headers:remove(name) end
end

local function prepare(h)
  local metadata = h:streamInfo():dynamicMetadata()
  local told = metadata:get(NAMESPACE)
  if told.translated then return end
  local parameters = h:metadata()
  local path, model = parameters:get("path"), parameters:get("model")
  local refuses_options, only = parameters:get("refuses_stream_options"), parameters:get("output_bound")
  local configured = parameters:get("headers")
  if not path then error("the route has no parameters for this cluster") end
  if told.request.endpoint == "realtime" then
    local headers = h:headers()
    forget(headers, configured)
    headers:replace(":path", path_for(path, model or told.request.model))
    return
  end
  -- All is read before the body: waiting for that makes the handles stale.
  local grant = metadata:get(GRANT_NAMESPACE)
  local body = h:body()
  local s = body:getBytes(0, body:length())
  -- There is no grant where a lease has let it pass; that cuts nothing down.
  local edits = edits_of(s, told.plan, model, refuses_options, only, grant and tonumber(grant.max_tokens))
  local length = body:setBytes(apply(s, edits))
  local headers = h:headers()
  forget(headers, configured)
  headers:replace(":path", path_for(path, model or told.request.model))
  headers:replace("content-length", tostring(length))
end

function envoy_on_request(h)
  local ok, problem = pcall(prepare, h)
  if not ok then
    h:logErr("upstream: " .. tostring(problem))
    local metadata = h:streamInfo():dynamicMetadata():get(NAMESPACE)
    local request = metadata and metadata.request
    h:respond({ [":status"] = "503", ["content-type"] = "application/json" },
      errors.as_json(errors.form_of(request and request.endpoint), h:headers():get("x-request-id"),
        "503", "gateway_error", "The gateway could not prepare this request."))
  end
end
