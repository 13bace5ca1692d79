-- The one Lua filter in front of everything (downstream, before ext_authz). What it does with a request is in request.lua, with an
-- answer in response.lua; both read JSON by json.lua. `control_plane/xds/lua.py` puts all of them into one text.
--
-- Leaves behind, as gateway_core/contract.py tells of them:
--   headers x-tg-route (the routing key), x-tg-prepared (the cluster the body is prepared for), x-tg-asked, x-tg-cache-asked;
--   dynamic metadata "tollgate" of a request: request, plan, lease, passes, own_key_org; and "tollgate.order": priority_groups;
--   of an answer: usage_first, usage_last, service_tier, kept, cache, sse_events, sse_beside_bytes, and of a session unfinished, counted_tokens.
--
-- The filter stands behind ext_authz a second time, for requests that had to be asked about: there it keeps the lease that the
-- answer may have brought, and follows it to where something is kept, or to an organisation's own key; and there it reads what the provider of
-- a session sends. It has to be the same script, since only such ones share what they remember.

local requests, responses, leases, errors = require("request"), require("response"), require("leases"), require("errors")
local kept, own_keys = require("kept"), require("own_keys")

local NAMESPACE, GRANT_NAMESPACE = "tollgate", "envoy.filters.http.ext_authz"

-- What the answer of ext_authz brings beside its leave: a lease, and where the request goes.
local function behind_admission(h, number)
  h:headers():remove("x-tg-asked")
  local metadata = h:streamInfo():dynamicMetadata()
  -- The answer passes both filters, and this one first.
  metadata:set(NAMESPACE, "passes", 1)
  local grant = metadata:get(GRANT_NAMESPACE)
  if number == kept.UNASKED then return kept.follow(h, metadata:get(NAMESPACE).request, grant) end
  if grant.own_keys then own_keys.follow(h, grant, h:metadata():get("chain")) end
  leases.keep(number, grant)
end

-- An error anywhere in a request answers 503: this filter fails closed.
function envoy_on_request(h)
  local number = h:headers():get("x-tg-asked")
  local ok, problem
  if number then
    ok, problem = pcall(behind_admission, h, number)
  else
    ok, problem = pcall(requests.on_request, h)
  end
  if not ok then
    h:logErr("front request: " .. tostring(problem))
    errors.refuse(h, {}, "503", "gateway_error", "The gateway could not read this request.")
  end
end

-- No pcall: the answer passes in any case, and Envoy counts the error (http.gateway.lua.errors).
envoy_on_response = responses.on_response
