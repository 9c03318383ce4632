"""The scripts: `WRITE` applies a decided commit if nothing changed since; `UPDATE` and `TOUCH` are shorter ways.

Rules
- A script that writes touches only the keys it is given, all in one slot. `LIST` also reads records that an index
  names; what it misses, since the slot is on its way elsewhere, is asked for again by name.
- It checks everything first and writes afterwards, so it writes all or nothing.
- UPDATE and TOUCH do what `ledger.updated` and `ledger.touched` say, on the header that format.py describes; whatever
  they cannot tell, they leave to the ledger by answering 0.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final

from ...core.ledger import MAX_SKEW
from .format import HEADER

_CLOCK: Final = """
local function clock(given)
  if given ~= '' then return tonumber(given) end
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end
"""

_HEAD: Final = """
local function head(value)
  local one, flags, version, seen, used, idle, expires, created = struct.unpack('>BBI4ddddd', value)
  local by, turn, nonce = string.byte(value, 55, 57)
  local function flag(bit) return math.floor(flags / bit) % 2 == 1 end
  return {
    one = one, flags = flags, version = version, seen = seen, used = used, idle = idle, expires = expires,
    created = created, owner = string.sub(value, 47, 54), by = string.sub(value, 58, 57 + by),
    turn = string.sub(value, 58 + by, 57 + by + turn), rest = 58 + by + turn + nonce,
    nonce = string.sub(value, 58 + by + turn, 57 + by + turn + nonce),
    ended = flag(1), used_known = flag(2), turn_known = flag(4), nonce_known = flag(8), idle_known = flag(16),
  }
end
local function packed(h)
  return struct.pack('>BBI4ddddd', h.one, h.flags, h.version, h.seen, h.used, h.idle, h.expires, h.created)
    .. h.owner .. string.char(#h.by, #h.turn, #h.nonce) .. h.by .. h.turn .. h.nonce
end
local function deadline(h)
  if h.idle_known then return math.min(h.expires, h.seen + h.idle) end
  return h.expires
end
local function life(h, now, tombstone)
  return string.format('%.0f', math.max(1000, math.min(1e14, (deadline(h) + tombstone - now) * 1000)))
end
"""

# KEYS: what the plan's numbers mean. ARGV: the plan, list after list, each with its length before it:
#   records  key, header         the record must still begin so; '' means that there must be none
#   stamps   key, stamp          the subject's sessions must still be those that were read
#   marks    key, milliseconds   the commit leaves this mark; if it is there already, numbered events are not written
#   acts     length, name, key.. commands to carry out
#   raise    key, field, value   a field of a hash becomes at least so great
#   events   key, at, event, 1   (1: numbered, else 0)
#   extend   key, milliseconds   a key lives at least so long
#   changed  handle              told to the channel, which comes last of all
# Answers 0: something changed, read again; 1: written; 2: written but for the numbered events.
WRITE: Final = """
local at = 0
local function take() at = at + 1; return ARGV[at] end
local function key() return KEYS[tonumber(take())] end
local function times() return tonumber(take()) end
for _ = 1, times() do
  if redis.call('GETRANGE', key(), 0, LAST) ~= take() then return 0 end
end
for _ = 1, times() do
  if (redis.call('HGET', key(), 's') or '') ~= take() then return 0 end
end
local answer = 1
for _ = 1, times() do
  if not redis.call('SET', key(), '1', 'PX', take(), 'NX') then answer = 2 end
end
for _ = 1, times() do
  local length = times()
  local act = {take(), key()}
  for place = 3, length do act[place] = take() end
  redis.call(unpack(act))
end
for _ = 1, times() do
  local hash, field, value = key(), take(), take()
  local stored = redis.call('HGET', hash, field)
  if not stored or tonumber(stored) < tonumber(value) then redis.call('HSET', hash, field, value) end
end
local time = redis.call('TIME')
local number = tonumber(time[1]) * 1000000 + tonumber(time[2])
for place = 1, times() do
  local set, score, event, numbered = key(), take(), take(), take()
  if answer == 1 or numbered == '0' then
    redis.call('ZADD', set, score, struct.pack('>I8', number + place) .. event)
  end
end
for _ = 1, times() do
  local one, lasts = key(), take()
  if redis.call('PTTL', one) < tonumber(lasts) then redis.call('PEXPIRE', one, lasts) end
end
for _ = 1, times() do redis.call('PUBLISH', ARGV[#ARGV], take()) end
return answer
""".replace("LAST", str(HEADER - 1))

# KEYS: the record. ARGV: clock, tombstone, the new record with `by` set, the version it was made from, channel, handle.
UPDATE: Final = f"""{_CLOCK}{_HEAD}
local stored = redis.call('GETRANGE', KEYS[1], 0, {HEADER} + 3 * 255)
if #stored < {HEADER} then return 0 end
local old, new = head(stored), head(ARGV[3])
if old.one ~= 1 or old.ended or old.version ~= tonumber(ARGV[4]) then return 0 end
if old.owner ~= new.owner or old.by == new.by then return 0 end
local now = clock(ARGV[1])
new.version, new.created = old.version + 1, old.created
new.seen = math.max(old.seen, math.min(new.seen, now + {MAX_SKEW}))
if old.used_known and old.turn_known == new.turn_known and old.turn == new.turn then
  if not new.used_known or old.used < new.used then new.used = old.used end
  if not new.used_known then new.flags = new.flags + 2 end
  if new.nonce_known then new.flags, new.nonce = new.flags - 8, '' end
end
if new.expires > old.expires or deadline(new) < deadline(old) then return 0 end
local value = packed(new) .. string.sub(ARGV[3], new.rest)
redis.call('SET', KEYS[1], value, 'PX', life(new, now, tonumber(ARGV[2])))
redis.call('PUBLISH', ARGV[5], ARGV[6])
return 1
"""

# KEYS: the record. ARGV: clock, tombstone, seen_at, '1' if a turn's proof follows, the proof.
TOUCH: Final = f"""{_CLOCK}{_HEAD}
local stored = redis.call('GETRANGE', KEYS[1], 0, {HEADER} + 3 * 255)
if #stored < {HEADER} then return 0 end
local h = head(stored)
if h.one ~= 1 or h.ended then return 0 end
local now = clock(ARGV[1])
local seen = math.min(tonumber(ARGV[3]), now + {MAX_SKEW})
if ARGV[4] == '1' and h.turn_known and h.turn == ARGV[5] and not h.used_known then
  local rest = redis.call('GETRANGE', KEYS[1], h.rest - 1, -1)
  h.flags, h.used, h.version, h.seen = h.flags + 2, seen, h.version + 1, math.max(h.seen, seen)
  if h.nonce_known then h.flags, h.nonce = h.flags - 8, '' end
  redis.call('SET', KEYS[1], packed(h) .. rest, 'PX', life(h, now, tonumber(ARGV[2])))
  return 1
end
if seen <= h.seen then return 0 end
h.seen = seen
redis.call('SETRANGE', KEYS[1], 6, struct.pack('>d', seen))
redis.call('PEXPIRE', KEYS[1], life(h, now, tonumber(ARGV[2])))
return 1
"""

# KEYS: the hash of keys. ARGV: name, '1' if there must be one already, that one, the new one.
PUT_KEY: Final = """
local present = redis.call('HGET', KEYS[1], ARGV[1])
if ARGV[2] == '1' and present ~= ARGV[3] or ARGV[2] == '0' and present then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[4])
return 1
"""

# KEYS: an index. ARGV: what a record's key begins with, the most records to read.
# Answers the time, the handles, and the records of the first of them; false for one that is not here (asking
# for one that went elsewhere is an error in a Cluster).
LIST: Final = """
local handles, records = redis.call('ZRANGE', KEYS[1], 0, -1), {}
for place = 1, math.min(#handles, tonumber(ARGV[2])) do
  local record = redis.pcall('GET', ARGV[1] .. handles[place])
  records[place] = type(record) == 'string' and record
end
return {redis.call('TIME'), handles, records}
"""

# KEYS: the hash of epochs. ARGV: how the fields begin that are meant, and the moment before which they are old.
FORGET_EPOCHS: Final = """
local fields, done = redis.call('HGETALL', KEYS[1]), 0
for place = 1, #fields, 2 do
  local mine = string.sub(fields[place], 1, #ARGV[1]) == ARGV[1]
  if mine and tonumber(fields[place + 1]) < tonumber(ARGV[2]) then
    done = done + redis.call('HDEL', KEYS[1], fields[place])
  end
end
return done
"""

_ALL: Final = (WRITE, UPDATE, TOUCH, PUT_KEY, LIST, FORGET_EPOCHS)
SOURCES: Final = {sha1(text.encode()).hexdigest(): text for text in _ALL}  # noqa: S324 - Redis's own
"""Each script by the name under which a server knows it."""

WRITE_SHA, UPDATE_SHA, TOUCH_SHA, PUT_KEY_SHA, LIST_SHA, FORGET_EPOCHS_SHA = SOURCES
