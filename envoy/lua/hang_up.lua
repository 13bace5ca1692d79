-- Ends the connection of a client that does not end it itself. Called by realtime.lua.
--
-- Envoy has no way for a script to end a request whose answer has begun: `respond` is refused, an error lets everything pass unread. So the
-- client's side of the connection is shut down as if the client had left; then Envoy ends both sides and writes its line.

local ffi = require("ffi")
ffi.cdef([[
int getpeername(int, void *, uint32_t *);
int getsockname(int, void *, uint32_t *);
int shutdown(int, int);
const char *inet_ntop(int, const void *, char *, uint32_t);
]])

local find, gsub, format = string.find, string.gsub, string.format

local ADDRESS_BYTES, TEXT_BYTES = 128, 64
local AF_INET, AF_INET6 = 2, 10
local BAD_NUMBER = 9              -- EBADF
local GAP_MAX = 1024              -- numbers of files that are free, one after the other, behind which there are no more
local BOTH = 2                    -- SHUT_RDWR

local address, length, words = ffi.new("uint8_t[?]", ADDRESS_BYTES), ffi.new("uint32_t[1]"), ffi.new("char[?]", TEXT_BYTES)

-- The address that `ask` says of a socket, as Envoy writes it; nil if it has none, and then whether there is such a file at all.
local function address_of(ask, number)
  length[0] = ADDRESS_BYTES
  if ask(number, address, length) ~= 0 then return nil, ffi.errno() ~= BAD_NUMBER end
  local family, port = ffi.cast("uint16_t *", address)[0], address[2] * 256 + address[3]
  if family ~= AF_INET and family ~= AF_INET6 then return nil, true end
  ffi.C.inet_ntop(family, address + (family == AF_INET and 4 or 8), words, TEXT_BYTES)
  local host = gsub(ffi.string(words), "^::ffff:(%d+%.)", "%1")
  return format(find(host, ":", 1, true) and "[%s]:%d" or "%s:%d", host, port), true
end

-- Shuts the connection between two addresses down.
local function hang_up(peer, own)
  local number, gap = 0, 0
  while gap < GAP_MAX do
    local found, is_open = address_of(ffi.C.getpeername, number)
    gap = is_open and 0 or gap + 1
    if found == peer and address_of(ffi.C.getsockname, number) == own then return ffi.C.shutdown(number, BOTH) end
    number = number + 1
  end
end

return { hang_up = hang_up }
