-- Errors of ours as JSON, in the form of the endpoint that was asked: OpenAI's, Anthropic's or Google's. gateway_core/errors.py words the others.

local byte, sub, format = string.byte, string.sub, string.format

local NAMESPACE = "tollgate"
local FIVE = 53
local ANTHROPIC_PATHS, GOOGLE_PATHS = "/v1/messages", "/v1beta/"
local ANTHROPIC = { messages = true, count_tokens = true }
local GOOGLE = { generate = true, stream_generate = true }
local ANTHROPIC_TYPES = {
  ["401"] = "authentication_error", ["402"] = "billing_error", ["403"] = "permission_error", ["404"] = "not_found_error",
  ["408"] = "timeout_error", ["413"] = "request_too_large", ["429"] = "rate_limit_error", ["504"] = "timeout_error",
}

local GOOGLE_STATUSES = {
  ["400"] = "INVALID_ARGUMENT", ["401"] = "UNAUTHENTICATED", ["402"] = "FAILED_PRECONDITION", ["403"] = "PERMISSION_DENIED",
  ["404"] = "NOT_FOUND", ["408"] = "DEADLINE_EXCEEDED", ["429"] = "RESOURCE_EXHAUSTED", ["500"] = "INTERNAL",
  ["504"] = "DEADLINE_EXCEEDED",
}

-- The form of the errors of an endpoint: "anthropic", "google", or nil for OpenAI's. Who asked for one that there is not is known by the path.
local function form_of(endpoint, path)
  if endpoint then return ANTHROPIC[endpoint] and "anthropic" or GOOGLE[endpoint] and "google" or nil end
  if not path then return nil end
  return sub(path, 1, #ANTHROPIC_PATHS) == ANTHROPIC_PATHS and "anthropic"
    or sub(path, 1, #GOOGLE_PATHS) == GOOGLE_PATHS and "google" or nil
end

local function as_json(form, request_id, status, code, message, param)
  local is_ours = byte(status) == FIVE
  if form == "google" then
    return format('{"error":{"code":%s,"message":"%s","status":"%s","reason":"%s"}}',
      status, message, GOOGLE_STATUSES[status] or (is_ours and "UNAVAILABLE" or "INVALID_ARGUMENT"), code)
  end
  if form == "anthropic" then
    return format('{"type":"error","error":{"type":"%s","message":"%s","code":"%s"},"request_id":%s}',
      ANTHROPIC_TYPES[status] or (is_ours and "api_error" or "invalid_request_error"), message, code,
      request_id and '"' .. request_id .. '"' or "null")
  end
  return format('{"error":{"message":"%s","type":"%s","param":%s,"code":"%s"}}',
    message, is_ours and "server_error" or "invalid_request_error", param and '"' .. param .. '"' or "null", code)
end

-- Answers with an error in the form of the endpoint. `known` is what the log line is told of the request besides.
local function refuse(h, known, status, code, message, param)
  known.error_code = code
  h:streamInfo():dynamicMetadata():set(NAMESPACE, "request", known)
  local headers = h:headers()
  h:respond(
    { [":status"] = status, ["content-type"] = "application/json" },
    as_json(form_of(known.endpoint, headers:get(":path")), headers:get("x-request-id"),
      status, code, message, param))
end

return { form_of = form_of, as_json = as_json, refuse = refuse }
