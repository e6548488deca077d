"""The blend of a RedisStore, as the server runs it: all of a script or nothing, and no other call in between.

KEYS   the hash of writers' markers, then an id each
ARGV   width, decay (0: mean), tick and the oldest that may be asked for ('': without a time), writer, its marker before and after
       ('': nobody asks), then a packed state an id: the call's mean

Gives 0, and does nothing, where the writer's marker is not what the client believes: then another process has written under the name,
or a call has come that the client gave up, and blending would be blending twice.

A key's value is packed.py's chain, newest first. `blended` is contract.py's rule in double precision; `chained` is packed.py's.
"""

BLEND = """
local width, decay, tick, oldest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local writer, before, after = ARGV[5], ARGV[6], ARGV[7]
local floats, size = '<' .. string.rep('f', width), 16 + 4 * width
local forever = string.rep('\\0', 7) .. '\\128'

local function blended(held, value)
  local n, at = struct.unpack('<i8i8', value)
  local count, last = struct.unpack('<i8i8', held)
  local new, old = {struct.unpack(floats, value, 17)}, {struct.unpack(floats, held, 17)}
  local keep = decay
  if keep == 0 then keep = count / (count + n) end
  local packed = {struct.pack('<i8i8', count + n, math.max(last, at))}
  for j = 1, width do packed[j + 1] = struct.pack('<f', keep * old[j] + (1 - keep) * new[j]) end
  return table.concat(packed)
end

local function chained(held, state)
  if not tick then return state .. held:sub(size + 1) end
  if #held == size then held = held .. forever end
  if #held > 0 and struct.unpack('<i8', held, size + 1) >= tick then return state .. held:sub(size + 1) end
  local step, done = size + 8, #held
  while done > step and struct.unpack('<i8', held, done - step - 7) < oldest do done = done - step end
  return state .. struct.pack('<i8', tick) .. held:sub(1, done)
end

if writer ~= '' and (redis.call('HGET', KEYS[1], writer) or '') ~= before then return 0 end
for i = 2, #KEYS do
  local held, state = redis.call('GET', KEYS[i]) or '', ARGV[i + 6]
  if held ~= '' and struct.unpack('<i8', held) == 0 then held = '' end
  if held ~= '' then state = blended(held, state) end
  redis.call('SET', KEYS[i], chained(held, state))
end
if writer ~= '' then redis.call('HSET', KEYS[1], writer, after) end
return 1
"""
