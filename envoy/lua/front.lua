-- The one Lua filter in front of everything (downstream, before ext_authz). What it does with a request is in request.lua, with an
-- answer in response.lua; both read JSON by json.lua. `control_plane/xds/lua.py` puts all of them into one text.
--
-- Leaves behind: header x-tg-route (the routing key), header x-tg-prepared (the cluster the body is prepared for), and
-- dynamic metadata "tollgate": request, plan, lease, usage_first, usage_last, service_tier, kept, sse_events (gateway_core/contract.py).
--
-- The filter stands behind ext_authz a second time, for requests that had to be asked about: there it keeps the lease that the
-- answer may have brought, and follows it to where something is kept. It has to be the same script, since only such ones share what they remember.

local requests, responses, leases, errors = require("request"), require("response"), require("leases"), require("errors")
local kept = require("kept")

local NAMESPACE, GRANT_NAMESPACE = "tollgate", "envoy.filters.http.ext_authz"

-- No pcall: the request is admitted already, and Envoy counts the error.
local function behind_admission(h, number)
  h:headers():remove("x-tg-asked")
  local metadata = h:streamInfo():dynamicMetadata()
  -- The answer passes both filters, and this one first.
  metadata:set(NAMESPACE, "passes", 1)
  local grant = metadata:get(GRANT_NAMESPACE)
  if number == kept.UNASKED then return kept.follow(h, metadata:get(NAMESPACE).request, grant) end
  leases.keep(number, grant)
end

-- An error anywhere in a request answers 503: this filter fails closed.
function envoy_on_request(h)
  local number = h:headers():get("x-tg-asked")
  if number then return behind_admission(h, number) end
  local ok, problem = pcall(requests.on_request, h)
  if not ok then
    h:logErr("front request: " .. tostring(problem))
    errors.refuse(h, {}, "503", "gateway_error", "The gateway could not read this request.")
  end
end

-- No pcall: the answer passes in any case, and Envoy counts the error (http.gateway.lua.errors).
envoy_on_response = responses.on_response
