-- What an answer of ext_authz admits beyond the request that it was asked about: so many more of the same kind, for less than a second.
-- Asking costs more than all the rest of a request, so request.lua spends leases first. One table for each worker of Envoy, and
-- bounded: what falls out of it is asked about again, and its money goes back when that of its slice does.
--
-- A lease is for one credential, route and shape of request; see shape_of. Whatever does not fit into it is asked about.

local ffi = require("ffi")
ffi.cdef([[
  typedef struct { long seconds; long nanoseconds; } tollgate_time;
  int clock_gettime(int clock, tollgate_time *time);
]])

local concat, floor, tonumber, tostring = table.concat, math.floor, tonumber, tostring

local ENTRIES_MAX = 8192     -- in each of two generations
local ASKED_MAX = 4096       -- questions under way
local UNSPENT_MAX = 64       -- leases that are given back with one question
local ASKED_AGAIN_MS = 1000  -- after which a question for a lease counts as lost
local CLOCK_MONOTONIC_COARSE = 6

local young, old, count = {}, {}, 0
local asked, questions = {}, 0
local unspent = {}

local time = ffi.new("tollgate_time[1]")
local function now_ms()
  ffi.C.clock_gettime(CLOCK_MONOTONIC_COARSE, time)
  return tonumber(time[0].seconds) * 1000 + floor(tonumber(time[0].nanoseconds) / 1000000)
end

local function give_back(lease)
  if lease.left > 0 and #unspent < UNSPENT_MAX then unspent[#unspent + 1] = lease.id .. ":" .. lease.left end
end

local function put(key, lease)
  if young[key] == nil then count = count + 1 end
  young[key] = lease
  if count >= ENTRIES_MAX then
    for _, forgotten in pairs(old) do give_back(forgotten) end
    young, old, count = {}, young, 0
  end
end

local function find_lease(key)
  local lease = young[key]
  if lease == nil then
    lease = old[key]
    if lease then
      old[key] = nil
      put(key, lease)
    end
  end
  return lease
end

local function give_up(key, lease)
  give_back(lease)
  old[key] = nil
  if young[key] then
    young[key] = nil
    count = count - 1
  end
end

-- Everything that admission looks at but the two numbers that a lease is a bound of. `known` has the fields of RequestField in
-- gateway_core/contract.py; a test compares.
local function shape_of(credential, route, known)
  local usual = credential .. "\n" .. route .. (known.stream and "\nstream" or "")
  if known.references or known.meters or known.service_tier or known.choices or known.units or known.files
    or known.least_output_tokens then
    return concat({
      usual, tostring(known.references), tostring(known.web_search), tostring(known.meters), tostring(known.service_tier),
      tostring(known.choices), tostring(known.units), tostring(known.files), tostring(known.file_bytes),
      tostring(known.query_bytes), tostring(known.least_output_tokens),
    }, "\n")
  end
  return usual
end

-- The grant that a request may pass with unasked, or nil.
local function spend(shape, known)
  local lease = find_lease(shape)
  if not lease then return nil end
  local now = now_ms()
  -- With an own key the cluster it leads to has to be there still.
  local is_moved = lease.offering ~= known.offering
    or (lease.grant and lease.grant.own_keys and lease.own_keys_as_of ~= known.own_keys_as_of)
  if lease.left == 0 or now >= lease.ends_ms or is_moved then
    if not lease.asked_ms then give_up(shape, lease) end
    return nil
  end
  local bound, output = lease.max_output_tokens, known.max_output_tokens
  if known.body_bytes > lease.body_bytes or (bound and (not output or output > bound)) then return nil end
  -- One request asks for the next lease while the others spend the rest of this one.
  if not lease.asked_ms and (lease.left <= lease.low or now >= lease.low_ms) then return nil end
  lease.left = lease.left - 1
  return lease.grant
end

-- A request has to be asked about. Returns the number of the question, whether it should bring a lease, and what is given back with it.
-- One question at a time does: many connections that find no lease would else be lent one each.
local function ask(shape, known)
  local now = now_ms()
  local lease = find_lease(shape)
  local is_wanted = not (lease and lease.asked_ms and now < lease.asked_ms + ASKED_AGAIN_MS)
  if is_wanted then
    if not lease then
      lease = { left = 0, ends_ms = 0 }
      put(shape, lease)
    end
    lease.asked_ms = now
  end
  local returned = unspent[1] and concat(unspent, ",") or nil
  if returned then unspent = {} end
  questions = questions + 1
  asked[questions % ASKED_MAX] = { number = questions, shape = shape, offering = known.offering, own_keys_as_of = known.own_keys_as_of, at_ms = now }
  return tostring(questions), is_wanted, returned
end

-- ext_authz has admitted a request that was asked about under this number, with this grant; perhaps there is a lease in it.
local function keep(number, grant)
  local slot = tonumber(number) % ASKED_MAX
  local question = asked[slot]
  if not question or question.number ~= tonumber(number) then return end
  asked[slot] = nil
  local id, uses, ttl_ms = grant.lease_id, grant.lease_uses, grant.lease_ttl_ms
  local before = find_lease(question.shape)
  if not id then
    if before and before.asked_ms == question.at_ms then before.asked_ms = nil end
    return
  end
  local lease = {
    id = id, left = uses, low = floor(uses / 4), offering = question.offering, grant = grant, own_keys_as_of = question.own_keys_as_of,
    -- Since it was asked for: whoever lost the right to it did so later than that.
    ends_ms = question.at_ms + ttl_ms, low_ms = question.at_ms + ttl_ms * 0.75,
    body_bytes = grant.lease_body_bytes, max_output_tokens = grant.lease_max_output_tokens,
  }
  grant.lease_uses, grant.lease_ttl_ms, grant.lease_body_bytes, grant.lease_max_output_tokens = nil, nil, nil, nil
  if before then give_up(question.shape, before) end
  put(question.shape, lease)
end

return { shape_of = shape_of, spend = spend, ask = ask, keep = keep }
