-- What a request costs, in a header of its answer. Called by response.lua, for clients that ask for it; changes nothing else.

local line = require("line")

local find, format = string.find, string.format
local quoted, struct = line.quoted, line.struct

local TIMEOUT_MS = 250     -- as long as an answer may wait to be told what it costs

-- Asks the billing sink what a request costs that `cluster` has answered: with what its line in the spool will have, so that the
-- sink rates one like the other. No answer in time, and the client is told nothing.
local function tell(h, cluster, status, request, grant, usage, tier)
  local text = '{"v":1,"type":"DownstreamEnd","start_time":' .. format("%.0f", h:timestamp()) .. ',"status":' .. status
    .. ',"cluster":' .. quoted(cluster) .. ',"request":' .. struct(request) .. ',"grant":' .. struct(grant)
    .. ',"usage_first":' .. quoted(usage) .. (tier and ',"service_tier":' .. quoted(tier) or "") .. "}"
  local answer, amount = h:httpCall("billing_sink",
    { [":method"] = "POST", [":path"] = "/cost", [":authority"] = "billing_sink", ["content-type"] = "application/json" },
    text, TIMEOUT_MS)
  if answer[":status"] == "200" and find(amount, "^%d+%.%d+$") then h:headers():replace("x-tollgate-cost", amount) end
end

return { tell = tell }
