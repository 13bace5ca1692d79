-- Upstream filter of a provider's cluster: prepares the body for an attempt that request.lua did not prepare (a retry, or a
-- chain whose first provider is drawn by weight). Envoy skips it when x-tg-prepared names this cluster.
--
-- Every attempt is given the body request.lua forwarded, but headers are one map shared by all attempts: so path, length and
-- model are always set anew. The parameters are metadata of the route under this filter's own name, so no header carries
-- them and none can leak.

local sub, match, tonumber, tostring, pcall = string.sub, string.match, tonumber, tostring, pcall

local function prepare(h)
  local parameters = h:metadata()
  local path, model = parameters:get("path"), parameters:get("model")
  if not path then error("the route has no parameters for this cluster") end
  local plan = h:streamInfo():dynamicMetadata():get("tollgate").plan
  local model_first, model_last = match(plan, "^(%d+),(%d+)$")
  local body = h:body()
  local s = body:getBytes(0, body:length())
  local text = sub(s, 1, tonumber(model_first) - 1) .. '"' .. model .. '"' .. sub(s, tonumber(model_last) + 1)
  local length = body:setBytes(text)
  local headers = h:headers()
  headers:replace(":path", path)
  headers:replace("content-length", tostring(length))
end

function envoy_on_request(h)
  local ok, problem = pcall(prepare, h)
  if not ok then
    h:logErr("upstream: " .. tostring(problem))
    h:respond({ [":status"] = "503", ["content-type"] = "application/json" },
      '{"error":{"message":"The gateway could not prepare this request.","type":"server_error","param":null,"code":"gateway_error"}}')
  end
end
