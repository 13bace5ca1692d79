-- Which endpoint a request is for, and whether it brings a key, before anything of its body is looked at.

local kept = require("kept")

local find, sub, byte, lower, match, gmatch = string.find, string.sub, string.byte, string.lower, string.match, string.gmatch

-- By the beginning of a key; gateway_core/api_keys.py.
local MODES = { ["sk-tg-live-"] = "live", ["sk-tg-test-"] = "test" }
local KEY_LENGTH, KEY_PREFIX_LENGTH = 60, 11

-- Paths and methods we serve; gateway_core/endpoints.py holds the same table.
local ENDPOINTS = {
  ["POST /v1/chat/completions"] = "chat",
  ["POST /v1/messages"] = "messages",
  ["POST /v1/messages/count_tokens"] = "count_tokens",
  ["POST /v1/responses"] = "responses",
  ["POST /v1/completions"] = "completions",
  ["POST /v1/embeddings"] = "embeddings",
  ["POST /v1/moderations"] = "moderations",
  ["POST /v1/rerank"] = "rerank",
  ["POST /v1/images/generations"] = "images",
  ["POST /v1/images/edits"] = "image_edits",
  ["POST /v1/audio/speech"] = "speech",
  ["POST /v1/audio/transcriptions"] = "transcriptions",
  ["POST /v1/audio/translations"] = "translations",
  ["POST /v1beta/models/{model}:generateContent"] = "generate",
  ["POST /v1beta/models/{model}:streamGenerateContent"] = "stream_generate",
  ["GET /v1/realtime"] = "realtime",
  ["GET /v1/models"] = "models",
  ["GET /v1/models/{model}"] = "model",
  ["GET /v1/responses/{id}"] = "response",
  ["GET /v1/responses/{id}/input_items"] = "response_input_items",
  ["POST /v1/responses/{id}/cancel"] = "response_cancel",
  ["DELETE /v1/responses/{id}"] = "response_delete",
  ["POST /v1/files"] = "file_upload",
  ["GET /v1/files"] = "files",
  ["GET /v1/files/{id}"] = "file",
  ["GET /v1/files/{id}/content"] = "file_content",
  ["DELETE /v1/files/{id}"] = "file_delete",
  ["POST /v1/batches"] = "batch_create",
  ["GET /v1/batches"] = "batches",
  ["GET /v1/batches/{id}"] = "batch",
  ["POST /v1/batches/{id}/cancel"] = "batch_cancel",
}
local ONE_MODEL, OF_A_MODEL = "GET /v1/models/{model}", "/v1/models/"
local OF_ONE_KEPT = "^/v1/(%l+)/([^/]+)(.*)$"
local KEPT_IN = { responses = "response", files = "file", batches = "batch" }
-- Google's clients ask at either of its versions, which differ in nothing that is sold here.
local IN_PATH, FOR_A_MODEL = "^/v1beta/models/(.+):(%a+)$", "POST /v1beta/models/{model}:"

-- The mode of the key that a request brings, and the key; nil if it brings nothing of a key's form. Whether it is a key, ext_authz
-- decides, and that its mode is this one; this keeps strangers from having their bodies buffered and scanned. Which header
-- counts is credential_of in gateway_core/api_keys.py.
local function mode_of(headers)
  local authorization = headers:get("authorization")
  local key
  if authorization and lower(sub(authorization, 1, 7)) == "bearer " then
    key = sub(authorization, 8)
  else
    key = headers:get("x-api-key")
  end
  return key and #key == KEY_LENGTH and MODES[sub(key, 1, KEY_PREFIX_LENGTH)] or nil, key
end

-- A model name is what routing and prices hang on, so only plain characters: letters, digits, - . / : _ @
local function model_name(s, first, last)
  if last < first or last - first > 198 then return nil end
  for i = first, last do
    local c = byte(s, i)
    local plain = (c >= 97 and c <= 122) or (c >= 65 and c <= 90) or (c >= 45 and c <= 58) or c == 95 or c == 64
    if not plain then return nil end
  end
  return sub(s, first, last)
end

-- The key that a query names. Whoever counts by it (control_plane/xds/bursts.py) reads names that are written in another way as well, so there are none.
local function key_in(query)
  for name, value in gmatch(sub(query, 2), "([^&=]*)=?([^&]*)") do
    if find(name, "%", 1, true) then return nil end
    if name == "key" then return value end
  end
end

-- The endpoint of a request whose path says the id of something kept, and the name of that.
local function endpoint_of_kept(method, path)
  local folder, id, action = match(path, OF_ONE_KEPT)
  local name = folder and KEPT_IN[folder] and kept.name_of(KEPT_IN[folder], id)
  if name then return ENDPOINTS[method .. " /v1/" .. folder .. "/{id}" .. action], name end
end

-- The endpoint of a request, and the model or the name of something kept where the path has it; nil if there is none. A key that stands
-- elsewhere, as Google's clients write it, is put where admission looks.
local function endpoint_of(headers, path, query)
  local method = headers:get(":method")
  if find(path, "{", 1, true) then return nil end
  local endpoint = ENDPOINTS[method .. " " .. path]
  if endpoint then return endpoint end
  local of_kept, name = endpoint_of_kept(method, path)
  if of_kept then return of_kept, nil, name end
  if method == "GET" and #path > #OF_A_MODEL and sub(path, 1, #OF_A_MODEL) == OF_A_MODEL then return ENDPOINTS[ONE_MODEL] end
  if method ~= "POST" then return nil end
  if sub(path, 1, #OF_A_MODEL) == OF_A_MODEL then path = "/v1beta" .. sub(path, 4) end
  local name, verb = match(path, IN_PATH)
  local model = name and model_name(name, 1, #name)
  endpoint = model and ENDPOINTS[FOR_A_MODEL .. verb]
  if endpoint and not headers:get("authorization") then
    local key = headers:get("x-goog-api-key") or key_in(query)
    if key then headers:replace("x-api-key", key) end
  end
  return endpoint, endpoint and model
end

return { endpoint_of = endpoint_of, mode_of = mode_of, model_name = model_name }
