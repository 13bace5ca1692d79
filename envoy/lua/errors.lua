-- Errors of ours as JSON, in the form of the endpoint that was asked: OpenAI's or Anthropic's. gateway_core/errors.py words the others.

local byte, sub, format = string.byte, string.sub, string.format

local FIVE = 53
local ANTHROPIC_PATHS = "/v1/messages"
local ANTHROPIC = { messages = true, count_tokens = true }
local ANTHROPIC_TYPES = {
  ["401"] = "authentication_error", ["402"] = "billing_error", ["403"] = "permission_error", ["404"] = "not_found_error",
  ["408"] = "timeout_error", ["413"] = "request_too_large", ["429"] = "rate_limit_error", ["504"] = "timeout_error",
}

-- Who asked for an endpoint that there is not is known by the path.
local function is_anthropic(endpoint, path)
  if endpoint then return ANTHROPIC[endpoint] == true end
  return path ~= nil and sub(path, 1, #ANTHROPIC_PATHS) == ANTHROPIC_PATHS
end

local function as_json(anthropic, request_id, status, code, message, param)
  local is_ours = byte(status) == FIVE
  if anthropic then
    return format('{"type":"error","error":{"type":"%s","message":"%s","code":"%s"},"request_id":%s}',
      ANTHROPIC_TYPES[status] or (is_ours and "api_error" or "invalid_request_error"), message, code,
      request_id and '"' .. request_id .. '"' or "null")
  end
  return format('{"error":{"message":"%s","type":"%s","param":%s,"code":"%s"}}',
    message, is_ours and "server_error" or "invalid_request_error", param and '"' .. param .. '"' or "null", code)
end

return { is_anthropic = is_anthropic, as_json = as_json }
