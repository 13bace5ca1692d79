-- Has ext_authz count tokens that a session has used against the limits it is under, and say whether any are left. Called by realtime.lua.

local line = require("line")

local char, sub, floor, format = string.char, string.sub, math.floor, string.format
local quoted = line.quoted

local PATH = "/tollgate.Sessions/Use"
local TIMEOUT_MS = 250            -- as long as the beginning of a response may wait for it
local FRAME_BYTES = 5             -- in front of a message

-- A message as gRPC frames it.
local function framed(text)
  local length = #text
  return char(0, floor(length / 16777216), floor(length / 65536) % 256, floor(length / 256) % 256, length % 256) .. text
end

local function tell(h, grant, tokens, reserved, is_awaited)
  local text = format('{"org_id":%s,"reserved_for":%s,"tokens_per_minute":%s,"tokens":%.0f,"reserved_tokens":%.0f}',
    quoted(grant.org_id), quoted(grant.reserved_for), quoted(grant.tokens_per_minute), tokens, reserved)
  return h:httpCall("ext_authz",
    { [":method"] = "POST", [":path"] = PATH, [":authority"] = "ext_authz", ["content-type"] = "application/grpc", te = "trailers" },
    framed(text), TIMEOUT_MS, not is_awaited)
end

-- Has tokens counted, without waiting for that.
local function count(h, grant, tokens)
  tell(h, grant, tokens, 0, false)
end

-- Waits for the error that the client is told if all tokens are used up, beside those of them that are only reserved. Nil if they are not, or nobody says: a limit
-- is in nobody's way for a fault of its own.
local function ask(h, grant, reserved)
  local headers, body = tell(h, grant, 0, reserved, true)
  if headers[":status"] ~= "200" or not body or #body <= FRAME_BYTES then return nil end
  return sub(body, FRAME_BYTES + 1)
end

return { count = count, ask = ask }
