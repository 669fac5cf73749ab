-- Writes one session unless somebody has claimed it in a later term, and notes with its instance
-- whether anything in it would have to be cancelled. KEYS: the session, what its instance holds.
-- ARGV: term, holder, policy, responses (JSON), milliseconds to live, the session's name among
-- those that its instance holds, whether there is anything (1 or 0). Returns 1 if it was written.
local term = tonumber(redis.call('HGET', KEYS[1], 'term') or 0)
local written = term <= tonumber(ARGV[1])
if written then
  redis.call('HSET', KEYS[1],
    'term', ARGV[1], 'holder', ARGV[2], 'policy', ARGV[3], 'responses', ARGV[4])
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
end
if written and ARGV[7] == '1' then
  redis.call('SADD', KEYS[2], ARGV[6])
  redis.call('PEXPIRE', KEYS[2], ARGV[5])
else
  redis.call('SREM', KEYS[2], ARGV[6])
end
return written and 1 or 0
