-- Upstream filter of a cluster: prepares the body for an attempt that request.lua did not prepare (a retry, a chain whose first
-- provider is drawn by weight, an answer that admission has cut down). Envoy skips it when x-tg-prepared names this cluster.
--
-- Every attempt is given the body request.lua forwarded, but headers are one map shared by all attempts: so path, length, model
-- and the bounds on the output are always set anew. The parameters are metadata of the route under this filter's own name, so no
-- header carries them and none can leak.

local sub, match, gmatch, format = string.sub, string.match, string.gmatch, string.format
local tonumber, tostring, pcall = tonumber, tostring, pcall
local apply = require("edits").apply
local errors = require("errors")

local NAMESPACE = "tollgate"
local GRANT_NAMESPACE = "envoy.filters.http.ext_authz"

-- The edits {first, last, text} that put another name for the model into a body, unless it is nil, and no more than so many tokens
-- of output, unless that is nil.
local function edits_of(s, plan, model, max_tokens)
  local edits = {}
  for part in gmatch(plan, "%S+") do
    local first, last = match(part, "^(%d+),(%d+)$")
    first, last = tonumber(first), tonumber(last)
    if not edits[1] then
      edits[1] = { first, last, model and '"' .. model .. '"' or sub(s, first, last) }
    elseif first and max_tokens then
      local own = tonumber(sub(s, first, last))
      edits[#edits + 1] = { first, last, format("%d", own and own < max_tokens and own or max_tokens) }
    elseif max_tokens then
      edits[1][3] = format('%s,"%s":%d', edits[1][3], sub(part, 2), max_tokens)
      return edits
    end
  end
  if max_tokens and not edits[2] then error("the plan does not say where the output is bounded") end
  return edits
end

local function prepare(h)
  local parameters = h:metadata()
  local path, model = parameters:get("path"), parameters:get("model")
  if not path then error("the route has no parameters for this cluster") end
  local metadata = h:streamInfo():dynamicMetadata()
  local plan, grant = metadata:get(NAMESPACE).plan, metadata:get(GRANT_NAMESPACE)
  local body = h:body()
  local s = body:getBytes(0, body:length())
  local edits = edits_of(s, plan, model, tonumber(grant.max_tokens))
  local length = body:setBytes(apply(s, edits))
  local headers = h:headers()
  headers:replace(":path", path)
  headers:replace("content-length", tostring(length))
end

function envoy_on_request(h)
  local ok, problem = pcall(prepare, h)
  if not ok then
    h:logErr("upstream: " .. tostring(problem))
    local metadata = h:streamInfo():dynamicMetadata():get(NAMESPACE)
    local request = metadata and metadata.request
    h:respond({ [":status"] = "503", ["content-type"] = "application/json" },
      errors.as_json(errors.is_anthropic(request and request.endpoint), h:headers():get("x-request-id"),
        "503", "gateway_error", "The gateway could not prepare this request."))
  end
end
