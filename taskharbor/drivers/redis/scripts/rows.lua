-- What a driver makes a Reservation of ----------------------------------------------------------
--
-- Written as msgpack by hand: Redis' own knows neither binary strings nor how to splice the
-- fragment that was packed when the job was enqueued.

local function bin(value)
  return value and struct.pack('>BI4', 198, #value) .. value or '\192'
end

local function str(value)
  if #value < 32 then return string.char(160 + #value) .. value end
  return struct.pack('>BI4', 219, #value) .. value
end

local function seconds(time) return struct.pack('>Bd', 203, time / 1000000) end
local function bool(value) return value and '\195' or '\194' end
local function whole(number) return struct.pack('>BI8', 207, number) end
local function array(length) return struct.pack('>BI4', 221, length) end

local ROW = '\220\0\17' -- an array of seventeen
