-- GCRA: KEYS[1] holds the theoretical arrival time in microseconds of Redis's own clock.
-- ARGV: microseconds per request, burst, how many are wanted. One atomic step.
-- Returns: how many fit, how many more would, how far the arrival time lies ahead (microseconds).
local interval, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local tat = math.max(tonumber(redis.call('GET', KEYS[1]) or now), now)
local room = math.max(0, math.floor((burst * interval - (tat - now)) / interval))
local taken = math.min(room, wanted)
if taken > 0 then
  tat = tat + taken * interval
  redis.call('SET', KEYS[1], string.format('%.0f', tat), 'PX', math.ceil((tat - now) / 1000))
end
return {taken, room - taken, tat - now}
