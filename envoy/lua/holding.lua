-- What clients have sent of events that are not whole yet: of all sessions of a worker together no more than so much, since nobody else
-- bounds the memory of scripts. Called by asking.lua.
--
-- Beyond it who holds the most loses it, and the session ends. A stream that is torn down tells nobody here; what it held counts until it is
-- collected, or is the most itself.

local sessions = require("sessions")

local setmetatable, pairs, concat = setmetatable, pairs, table.concat

local BYTES_MAX = 67108864

local sum = 0
local holders = setmetatable({}, { __mode = "k" })

-- Puts s behind the pieces, joined with those in front of it that are together no longer: there are few, however short they come, and no byte is
-- copied often.
local function join(pieces, s)
  local from, bytes = #pieces, #s
  while from > 0 and #pieces[from] <= bytes do
    bytes, from = bytes + #pieces[from], from - 1
  end
  local last = #pieces + 1
  pieces[last] = s
  if from + 1 == last then return end
  local joined = concat(pieces, "", from + 1, last)
  for i = last, from + 2, -1 do pieces[i] = nil end
  pieces[from + 1] = joined
end

-- A session's own place, with nothing in it.
local function place(session)
  return { session = session, pieces = {}, bytes = 0 }
end

-- Empties it, and returns what was there.
local function take(own)
  if own.bytes == 0 then return "" end
  local pieces = own.pieces
  sum, holders[own] = sum - own.bytes, nil
  own.pieces, own.bytes = {}, 0
  return concat(pieces)
end

-- Ends the session that holds the most, unless the sum was too high by what has been collected.
local function relieve()
  local most
  sum = 0
  for own in pairs(holders) do
    sum = sum + own.bytes
    if not most or own.bytes > most.bytes then most = own end
  end
  if sum <= BYTES_MAX then return end
  most.session.ended = sessions.NO_ROOM
  take(most)
end

-- Holds s too. It may be the session's end, or another's.
local function hold(own, s)
  join(own.pieces, s)
  own.bytes, sum, holders[own] = own.bytes + #s, sum + #s, true
  if sum > BYTES_MAX then relieve() end
end

return { place = place, hold = hold, take = take }
