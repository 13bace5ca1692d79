-- The one Lua filter in front of everything (downstream, before ext_authz). What it does with a request is in request.lua, with an
-- answer in response.lua; both read JSON by json.lua. `control_plane/xds/lua.py` puts all of them into one text.
--
-- Leaves behind: header x-tg-route (the routing key), header x-tg-prepared (the cluster the body is prepared for), and
-- dynamic metadata "tollgate": request, plan, usage_first, usage_last, service_tier, sse_events (gateway_core/contract.py).

local requests, responses = require("request"), require("response")

-- An error anywhere in a request answers 503: this filter fails closed.
function envoy_on_request(h)
  local ok, problem = pcall(requests.on_request, h)
  if not ok then
    h:logErr("front request: " .. tostring(problem))
    requests.refuse(h, {}, "503", "gateway_error", "The gateway could not read this request.")
  end
end

-- No pcall: the answer passes in any case, and Envoy counts the error (http.gateway.lua.errors).
envoy_on_response = responses.on_response
