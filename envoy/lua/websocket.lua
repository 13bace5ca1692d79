-- Frames of a WebSocket (RFC 6455), read as they pass. Called by asking.lua and answering.lua; keeps a header that is not whole yet, and
-- nothing else.
--
-- Strict, since whoever reads on behind what it has not understood takes a payload for a header: nothing is compressed here, so no
-- reserved bit is set, and each side masks or does not, as its role has it.

local ffi = require("ffi")

local byte, sub, char, rep, min = string.byte, string.sub, string.char, string.rep, math.min
local cast, copy, new, text_of, bxor = ffi.cast, ffi.copy, ffi.new, ffi.string, bit.bxor

local CONTINUATION, TEXT, BINARY, CLOSE, PONG = 0, 1, 2, 8, 10
local FIN, MASKED = 128, 128
local CONTROL_BYTES_MAX = 125
local FRAMES_MAX = 1024           -- of a message, with all that comes between them
local HIGH_MAX = 0x1fffff         -- of a length of 64 bits, so that it is a whole number here

-- What is behind the first two bytes: how many bytes of length.
local function length_bytes(short)
  return short == 127 and 8 or short == 126 and 2 or 0
end

local function number_at(s, first, last)
  local value = 0
  for i = first, last do value = value * 256 + byte(s, i) end
  return value
end

-- The bytes of a payload from first to last without their mask, `offset` bytes into its frame.
local function unmasked(s, first, last, mask, offset)
  local length = last - first + 1
  local turned = sub(rep(mask, 2), offset % 4 + 1, offset % 4 + 4)
  local words = (length + 3 - (length + 3) % 4) / 4
  local plain = new("int32_t[?]", words)
  copy(plain, cast("const char*", s) + first - 1, length)
  local key = cast("const int32_t*", turned)[0]
  for i = 0, words - 1 do plain[i] = bxor(plain[i], key) end
  return text_of(plain, length)
end

-- A reader of one direction. `on_piece(s, first, last)` is called with payload of messages, without its mask, and `on_message(last)` when
-- one has ended, at that byte of the text being read; where it returns what is wrong with it, nothing behind it is read. Without `on_piece` no
-- mask is taken off.
local function reader(is_masked, on_piece, on_message)
  local header, left = "", 0
  local is_last, is_control, in_message = false, false, false
  local frames = 0
  local mask, offset

  -- A frame has ended. Returns what is wrong with its message.
  local function ended(at)
    if is_control then return end
    in_message = not is_last
    if is_last then
      frames = 0
      return on_message(at)
    end
  end

  -- Reads the first bytes of a frame, as far as they are there. Returns how long its header is, nil if it is not whole, or nil and
  -- what is wrong.
  local function read_header(h)
    if #h < 2 then return nil end
    local first, second = byte(h, 1, 2)
    local opcode, short = first % 16, second % MASKED
    if first % FIN >= 16 then return nil, "a reserved bit" end
    if (second >= MASKED) ~= is_masked then return nil, "a mask" end
    local more = length_bytes(short)
    local length = 2 + more + (is_masked and 4 or 0)
    if #h < length then return nil end
    is_last, is_control = first >= FIN, opcode >= CLOSE
    if is_control then
      if opcode > PONG or not is_last or short > CONTROL_BYTES_MAX then return nil, "a control frame" end
    elseif opcode > BINARY or (opcode == CONTINUATION) ~= in_message then
      return nil, "an opcode"
    end
    left = short
    if more == 8 and number_at(h, 3, 6) > HIGH_MAX then return nil, "a length" end
    if more > 0 then left = number_at(h, 3, 2 + more) end
    if is_masked then mask, offset = sub(h, length - 3, length), 0 end
    return length
  end

  -- Reads on. Returns up to where s goes without a message, or a frame between two, that has begun and not ended; and what is wrong behind
  -- that, if something is.
  local function read(s)
    local i, whole = 1, 0
    while i <= #s do
      if left == 0 then
        local known = #header
        local h = header .. sub(s, i, i + 13 - known)
        local length, problem = read_header(h)
        if problem then return whole, problem end
        if not length then
          header = h
          return whole
        end
        header = ""
        i = i + length - known
        if not is_control then in_message = true end
        if in_message then
          frames = frames + 1
          if frames > FRAMES_MAX then return whole, "too many frames" end
        end
      end
      local last = min(#s, i + left - 1)
      if last >= i then
        if on_piece and not is_control then
          if mask then
            local plain = unmasked(s, i, last, mask, offset)
            on_piece(plain, 1, #plain)
            offset = offset + #plain
          else
            on_piece(s, i, last)
          end
        end
        left = left - (last - i + 1)
        i = last + 1
      end
      if left == 0 then
        local problem = ended(i - 1)
        if problem then return whole, problem end
        if not in_message then whole = i - 1 end
      elseif last < i then
        return whole
      end
    end
    return whole
  end

  return { read = read }
end

local function frame(first, payload)
  local length = #payload
  if length <= CONTROL_BYTES_MAX then return char(FIN + first, length) .. payload end
  return char(FIN + first, 126, (length - length % 256) / 256, length % 256) .. payload
end

-- Frames of a server: a text of less than 65,536 bytes, and the end.
local function text(payload)
  return frame(TEXT, payload)
end

local function close(code)
  return frame(CLOSE, char((code - code % 256) / 256, code % 256))
end

-- The end as a client says it. The mask is none: nobody chose what is in it.
local GOING_AWAY = char(FIN + CLOSE, MASKED + 2, 0, 0, 0, 0, 3, 232)

return { reader = reader, text = text, close = close, GOING_AWAY = GOING_AWAY }
