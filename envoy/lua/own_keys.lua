-- Requests that are sent with their organisation's own key. Which providers have one, ext_authz says in the grant; the route says what its
-- chain is; here the one is put into the other, for Envoy's priority groups to take in place of the route's. The route itself stays.

local gmatch, match, tonumber, tostring = string.gmatch, string.match, tonumber, tostring

local NAMESPACE = "tollgate"
local ORDER_NAMESPACE, PRIORITY_GROUPS = "tollgate.order", "priority_groups"
-- As control_plane/xds/routes.py has them, for a route that by itself had nowhere else to go.
local RETRY_ON = "5xx,gateway-error,reset,connect-failure,refused-stream,retriable-status-codes"
local RETRIABLE_STATUS = "401,403,408,409,429,529"

-- Up to which change of such keys there are clusters for them; nil where a route leads to no provider that allows any.
local function as_of(h, chain)
  return chain and h:virtualHost():metadata():get("own_keys_as_of")
end

-- The cluster with the organisation's key: its own, or if it leads there by a listener inside Envoy, the one that all share.
local function with_own_key(provider, way, org_id)
  return "provider/" .. provider .. "/" .. (way == "" and org_id or "own" .. way)
end

-- What is tried, one group after the other: what the route says, in the order that choice.lua has set for this request, if it has.
local function groups_of(chain, order)
  local groups = {}
  for part in gmatch(chain, "[^;]+") do
    local clusters = {}
    for cluster, weight in gmatch(part, "(%S+)=(%d+)") do
      clusters[#clusters + 1] = { cluster_name = cluster, weight = tonumber(weight) }
    end
    local set = order and order[#groups + 1]
    groups[#groups + 1] = set and set.clusters or clusters
  end
  return groups
end

-- Adds a group with own keys where there are any, and behind it, where one of them may be passed over for ours, the same without those. Both
-- have the same weights, so what is drawn stands in the same place of both.
local function add_group(groups, members, kinds, org_id)
  local own, ours, falls_back = {}, {}, false
  for i = 1, #members do
    local cluster, weight = members[i].cluster_name, members[i].weight
    local provider, way = match(cluster, "^provider/([^~]+)(.*)$")
    local kind = kinds[provider]
    local name = kind and with_own_key(provider, way, org_id) or cluster
    own[i] = { cluster_name = name, weight = weight }
    ours[i] = { cluster_name = kind == "+" and cluster or name, weight = weight }
    falls_back = falls_back or kind == "+"
  end
  groups[#groups + 1] = { name = "own", clusters = own }
  if falls_back then groups[#groups + 1] = { name = "ours", clusters = ours } end
  return falls_back
end

-- Has a request go where its grant says. Fails, and the request with it, if the route does not say what its chain is.
local function follow(h, grant, chain)
  local kinds = {}
  for provider, kind in gmatch(grant.own_keys, "([^ +]+)(%+?)") do kinds[provider] = kind end
  local metadata = h:streamInfo():dynamicMetadata()
  local order = metadata:get(ORDER_NAMESPACE)
  local tried = groups_of(chain, order and order[PRIORITY_GROUPS])
  local groups, falls_back = {}, false
  for i = 1, #tried do falls_back = add_group(groups, tried[i], kinds, grant.org_id) or falls_back end
  metadata:set(ORDER_NAMESPACE, PRIORITY_GROUPS, groups)
  metadata:set(NAMESPACE, "own_key_org", grant.org_id)
  if falls_back then
    local headers = h:headers()
    headers:replace("x-envoy-retry-on", RETRY_ON)
    headers:replace("x-envoy-retriable-status-codes", RETRIABLE_STATUS)
    headers:replace("x-envoy-max-retries", tostring(#groups - 1))
  end
  -- The same route again, and its cluster anew.
  h:clearRouteCache()
end

return { as_of = as_of, follow = follow }
