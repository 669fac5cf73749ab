-- GCRA as a leaky bucket (gcra.py), for any number of limits, in one atomic step.
-- A key holds two doubles: the bucket's level, and the microsecond at which it was that.
-- KEYS: one for each settlement and each limit, in the order of the numbers.
-- ARGV[1], packed, since every argument costs the client microseconds:
--   how many settlements; for each: per minute, units to give back (below 0: to charge);
--   how many requests; for each: how many limits; for each of those: per minute, cost.
-- Returns doubles: for each request 1 or 0 (it fits, and is counted in every limit, or in none),
-- then the level of each of its limits afterwards.
local UNIT = 60000000
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local numbers, place, key = ARGV[1], 1, 0

local function next_key()
  key = key + 1
  return KEYS[key]
end

local function next_number()
  local number
  number, place = struct.unpack('<d', numbers, place)
  return number
end

local function level_of(name, per_minute)
  local stored = redis.call('GET', name)
  if not stored or #stored ~= 16 then return 0 end
  local level, at = struct.unpack('<dd', stored)
  -- A clock that was set back, or a replica's: nobody is kept out for longer than a minute.
  if at > now + UNIT then return 0 end
  return math.max(0, level - math.max(0, now - at) * per_minute)
end

local function write(name, level, per_minute)
  if level <= 0 then
    redis.call('DEL', name)
  else
    redis.call('SET', name, struct.pack('<dd', level, now), 'PX', math.ceil(level / per_minute / 1000))
  end
end

for _ = 1, next_number() do
  local name, per_minute = next_key(), next_number()
  write(name, level_of(name, per_minute) - next_number() * UNIT, per_minute)
end

local answer = {}
for _ = 1, next_number() do
  local limits, fits = {}, true
  for n = 1, next_number() do
    local name, per_minute, cost = next_key(), next_number(), next_number() * UNIT
    local level = level_of(name, per_minute)
    fits = fits and level + cost <= per_minute * UNIT
    limits[n] = {name, per_minute, level, cost}
  end
  answer[#answer + 1] = struct.pack('<d', fits and 1 or 0)
  for _, limit in ipairs(limits) do
    local name, per_minute, level, cost = unpack(limit)
    if fits then
      level = level + cost
      write(name, level, per_minute)
    end
    answer[#answer + 1] = struct.pack('<d', level)
  end
end
return table.concat(answer)
