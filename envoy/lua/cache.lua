-- Whether an answer may be a cached one: by request.lua asked of response_cache, whose filter every other request skips; and what
-- response.lua is told of it. What a request has to be like for the route's wish to count, response_cache decides: it reads the whole body.

local errors = require("errors")

local find = string.find

local NAMESPACE = "tollgate"
local BODY_BYTES_MAX = 262144     -- longer ones are hardly asked twice
-- Whose answers are cached, and whether they hang on chance unless a `temperature` says otherwise.
local IS_SAMPLED = {
  chat = true, completions = true, messages = true, responses = true, generate = true, stream_generate = true,
  embeddings = false, moderations = false, rerank = false,
}

-- `s` is the body as the client sent it; `ttl_s` the route's word, nil where it has none. Returns false if the request is refused for what it
-- wishes: who has misspelt it would pay for each answer, or be told again what must be new.
local function ask(h, headers, known, s, ttl_s)
  local wish = headers:get("x-tollgate-cache")
  if wish and wish ~= "on" and wish ~= "off" then
    errors.refuse(h, known, "400", "invalid_header", "The header 'x-tollgate-cache' says 'on' or 'off'.")
    return false
  end
  local is_sampled = IS_SAMPLED[known.endpoint]
  if is_sampled == nil or ttl_s == 0 or known.body_bytes > BODY_BYTES_MAX or wish == "off" then return true end
  if wish == "on" then
    known.cache = "client"
  elseif ttl_s and not (is_sampled and not find(s, '"temperature"', 1, true)) then
    known.cache = "route"
  else
    return true
  end
  known.cache_ttl_s = ttl_s
  headers:replace("x-tg-cache-asked", "true")
  return true
end

-- Whether the answer is a cached one; the line in the spool is told, too. No provider can say so: its header is taken away.
local function told(headers, metadata)
  local outcome = headers:get("x-tollgate-cache")
  if not outcome then return false end
  metadata:set(NAMESPACE, "cache", outcome)
  return outcome == "hit"
end

return { ask = ask, told = told }
