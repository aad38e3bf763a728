"""Kept answers in Redis, so that several daemons ask once: each step atomic, on Redis's own clock.

Everything of one API lies under one prefix: `e:` an answer, `l:` who asks for it just now, `g:` what is forgotten
together, `c:` when that was last changed, `index` the answers by their last use and `meta` their sizes, by which the
whole is bounded. Names are keyed hashes, and what is read back is believed only with its tag, both made with a key
that follows from the API's address and credentials: who cannot ask the peer for an answer can neither find nor forge
it here.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Literal

import msgspec

from actors.resilience.shared import RedisLink, SharedDown
from actors.resilience.shelf import CHANGE_REMEMBERED_S, ENTRY_BYTES, Kept
from runtime import clock

# An answer lives in Redis for so long at most, whatever its peer says.
LONGEST_MS = 7 * 24 * 3600 * 1000
# Whoever asks the peer is waited for by other daemons for so long; then another one asks too.
LEASE_S = 5.0
# So many groups are remembered that were to be forgotten while Redis was away; of more, everything is forgotten.
MAX_OWED = 1000
# Redis stands still while a script runs.
CLEARED_AT_ONCE = 500
TAG_BYTES = 16

_FORGET_ONE = """
local prefix, index, meta = ARGV[1], ARGV[1] .. 'index', ARGV[1] .. 'meta'
local function forget(member)
  redis.call('DEL', prefix .. 'e:' .. member)
  redis.call('ZREM', index, member)
  local said = redis.call('HGET', meta, member)
  if not said then return end
  local size, group = string.match(said, '^(%d+) (.*)$')
  redis.call('HDEL', meta, member)
  if redis.call('HINCRBY', meta, 'bytes', -(tonumber(size) or 0)) < 0 then redis.call('HSET', meta, 'bytes', 0) end
  if group and group ~= '' then redis.call('SREM', prefix .. 'g:' .. group, member) end
end
"""

# An entry of another type than ours, or without our fields, is as good as none.
_GET = """
local prefix, member, known, token, lease_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local entry, lease = prefix .. 'e:' .. member, prefix .. 'l:' .. member
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local kept = redis.pcall('HMGET', entry, 'stamp', 'at', 'fresh', 'v')
if kept.err then kept = {} end
local stamp, at, fresh, v = kept[1], tonumber(kept[2] or ''), tonumber(kept[3] or ''), kept[4]
if not (stamp and at and fresh and v) then stamp, at, fresh, v = '', 0, 0, '' end
if at > now then at = now end
if stamp ~= '' then redis.pcall('ZADD', prefix .. 'index', 'XX', now, member) end
local asks = 'nobody'
if lease_ms > 0 and now >= at + fresh then
  asks = 'self'
  local left = redis.pcall('PTTL', lease)
  if type(left) == 'number' and left > 0 and left <= lease_ms then
    if redis.pcall('GET', lease) ~= token then asks = 'other' end
  else
    redis.pcall('SET', lease, token, 'PX', lease_ms)
  end
end
if stamp == known then v = '' end
return {now, stamp, at, v, asks}
"""

# Redis refuses writes for want of memory only before a script's first one, so that comes before the answer's removal.
_PUT = (
    _FORGET_ONE
    + """
local member, stamp, size, fresh, life, group = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6]), ARGV[7]
local v, token, most, longest, took = ARGV[8], ARGV[9], tonumber(ARGV[10]), ARGV[11], tonumber(ARGV[12])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local room = redis.pcall('HSETNX', meta, 'bytes', 0)
if redis.pcall('GET', prefix .. 'l:' .. member) == token then redis.call('DEL', prefix .. 'l:' .. member) end
local changed = group ~= '' and tonumber(redis.pcall('GET', prefix .. 'c:' .. group))
if changed and now - took < changed then return 0 end
forget(member)
if type(room) == 'table' then return 0 end
if life <= 0 or size > most then return 0 end
while (tonumber(redis.call('HGET', meta, 'bytes') or '0') or 0) + size > most do
  local oldest = redis.call('ZRANGE', index, 0, 0)[1]
  if not oldest then redis.call('DEL', meta); break end
  forget(oldest)
end
redis.call('HSET', prefix .. 'e:' .. member, 'stamp', stamp, 'at', string.format('%.0f', now), 'fresh', fresh, 'v', v)
redis.call('PEXPIRE', prefix .. 'e:' .. member, life)
redis.call('ZADD', index, now, member)
redis.call('HSET', meta, member, ARGV[4] .. ' ' .. group)
redis.call('HINCRBY', meta, 'bytes', size)
redis.call('PEXPIRE', index, longest)
redis.call('PEXPIRE', meta, longest)
if group ~= '' then
  local name = prefix .. 'g:' .. group
  redis.call('SADD', name, member)
  if redis.call('PTTL', name) < life then redis.call('PEXPIRE', name, life) end
end
return 1
"""
)

_DROP_GROUP = (
    _FORGET_ONE
    + """
local name = prefix .. 'g:' .. ARGV[2]
local members = redis.call('SMEMBERS', name)
for _, member in ipairs(members) do forget(member) end
redis.call('DEL', name)
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
redis.call('SET', prefix .. 'c:' .. ARGV[2], now, 'PX', ARGV[3])
return #members
"""
)

_CLEAR = (
    _FORGET_ONE
    + """
local members = redis.call('ZRANGE', index, 0, tonumber(ARGV[2]) - 1)
for _, member in ipairs(members) do forget(member) end
return #members
"""
)

_RELEASE = """
local lease = ARGV[1] .. 'l:' .. ARGV[2]
if redis.pcall('GET', lease) == ARGV[3] then redis.call('DEL', lease) end
return 1
"""

Asks = Literal["nobody", "self", "other"]


class _Record(msgspec.Struct, array_like=True):
    """An answer as it lies in Redis; times in seconds after it was kept."""

    stamp: str
    age_s: float
    fresh_s: float
    refresh_s: float
    stale_s: float
    until_s: float
    group: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Found:
    """What Redis has of an answer, and who asks the peer for it just now."""

    kept: Kept | None
    asks: Asks


class SharedShelf:
    """The answers of one API for every daemon with the same credentials; `bytes` bounds them all, `entry` each one.

    `key` (16 to 64 bytes) and `prefix` are the same in all of them.
    """

    def __init__(self, link: RedisLink, prefix: str, key: bytes, *, max_bytes: int, max_entry_bytes: int) -> None:
        self.link = link
        # Plain numbers: a configured Size would go to Redis as it is shown to people.
        self.max_bytes = int(max_bytes)
        self.max_entry_bytes = int(max_entry_bytes)
        self._prefix = f"{prefix}:"
        self._key = key
        # Of this daemon, and outliving its cache actor: who asks for what.
        self._token = secrets.token_hex(8)
        self._owed: dict[str, None] = {}
        self._owes_all = False
        self._get, self._put, self._drop_group, self._clear, self._release = (
            link.script(text) for text in (_GET, _PUT, _DROP_GROUP, _CLEAR, _RELEASE)
        )

    def __repr__(self) -> str:
        return f"<SharedShelf {self._prefix} {self.link.state}>"

    def get(self, key: str, known: Kept | None, *, lease: bool) -> Found:
        """Return the newest answer, which may be the `known` one; raises SharedDown. Switches greenlets.

        With `lease`, who finds none that is fresh is from then on the one who asks for it, unless another one does.
        """
        self._pay()
        member = self._member(key)
        stamp = "" if known is None else known.stamp
        lease_ms = int(LEASE_S * 1000) if lease else 0
        now_ms, found, at_ms, value, asks = self._run(self._get, member, stamp, self._token, lease_ms)
        asking: Asks = {b"self": "self", b"other": "other"}.get(asks, "nobody")  # type: ignore[assignment]
        if not found:
            return Found(None, asking)
        if known is not None and found == stamp.encode():
            return Found(known, asking)
        return Found(self._read(member, value, (int(now_ms) - int(at_ms)) / 1000), asking)

    def put(self, key: str, kept: Kept, now: float, took_s: float = 0.0) -> bool:
        """Keep an answer in place of an older one, and stop asking for it.

        False when it is too large or too old, or what it is about was changed within the `took_s` seconds that it took
        to come. `now` is on the scale of `clock.now()`, as the times of `kept` are. Raises SharedDown. Switches
        greenlets.
        """
        self._pay()
        member, group = self._member(key), self._group(kept.group)
        record = _Record(
            kept.stamp, now - kept.made_at, kept.fresh_until - now, kept.refresh_until - now, kept.stale_until - now,
            kept.until - now, kept.group, kept.content,
        )  # fmt: skip
        packed = msgspec.msgpack.encode(record)
        size = len(packed) + ENTRY_BYTES
        most = min(self.max_bytes, self.max_entry_bytes + ENTRY_BYTES)
        life_ms = 0 if size > most else int(min(record.until_s * 1000, LONGEST_MS))
        value = self._tag(member, packed) + packed if life_ms > 0 else b""
        # An answer that is not kept takes the place of the older one all the same.
        answer = self._run(
            self._put, member, kept.stamp, size, int(max(record.fresh_s, 0.0) * 1000), life_ms, group, value,
            self._token, self.max_bytes, LONGEST_MS, int(took_s * 1000),
        )  # fmt: skip
        return bool(answer[0])

    def release(self, key: str) -> None:
        """Let others ask: no answer came that could be kept. Raises SharedDown. Switches greenlets."""
        self._run(self._release, self._member(key), self._token)

    def drop_group(self, group: str) -> None:
        """Forget the answers of a group; while Redis is away that is made up for later. Switches greenlets."""
        try:
            self._pay()
            self._drop(group)
        except SharedDown:
            if len(self._owed) < MAX_OWED:
                self._owed[group] = None
            else:
                self._owes_all = True

    def clear(self) -> int:
        """Forget all answers and return how many there were; raises SharedDown. Switches greenlets."""
        count = 0
        while some := int(self._run(self._clear, CLEARED_AT_ONCE)[0]):
            count += some
        self._owed.clear()
        self._owes_all = False
        return count

    def _pay(self) -> None:
        """Forget now what was to be forgotten while Redis was away, before anything is believed again."""
        if self._owes_all:
            self.clear()
        for group in list(self._owed):
            self._drop(group)
            self._owed.pop(group, None)

    def _drop(self, group: str) -> None:
        self._run(self._drop_group, self._group(group), int(CHANGE_REMEMBERED_S * 1000))

    def _read(self, member: str, value: bytes, since_s: float) -> Kept | None:
        """Return what was kept `since_s` seconds ago, None for bytes that are none of ours."""
        packed = value[TAG_BYTES:]
        if not hmac.compare_digest(value[:TAG_BYTES], self._tag(member, packed)):
            return None
        try:
            record = msgspec.msgpack.decode(packed, type=_Record)
        except msgspec.DecodeError:
            return None
        at = clock.now() - since_s
        kept = Kept(
            record.content, at - record.age_s, at + record.fresh_s, at + record.stale_s, at + record.until_s,
            record.group, at + record.refresh_s, record.stamp,
        )  # fmt: skip
        return None if since_s >= record.until_s else kept

    def _run(self, script: object, *args: str | int | float | bytes) -> list[bytes]:
        # The one key named is the one that every other key shares its slot with.
        return self.link.run(script, f"{self._prefix}index", self._prefix, *args)  # type: ignore[arg-type]

    def _member(self, key: str) -> str:
        return hashlib.blake2b(key.encode(), key=self._key, digest_size=16, person=b"key").hexdigest()

    def _group(self, group: str) -> str:
        if not group:
            return ""
        return hashlib.blake2b(group.encode(), key=self._key, digest_size=16, person=b"group").hexdigest()

    def _tag(self, member: str, packed: bytes) -> bytes:
        return hashlib.blake2b(
            packed, key=self._key, digest_size=TAG_BYTES, person=b"answer", salt=bytes.fromhex(member)
        ).digest()


def derive(secret: bytes, place: str) -> tuple[str, bytes]:
    """Return name and key of what only those share who have the same secret at the same place. Never switches.

    Slow on purpose (about 20 ms): the name must not help anybody to guess a weak password.
    """
    made = hashlib.scrypt(secret, salt=f"regrow kept answers 1 {place}".encode(), n=1 << 13, r=8, p=1, dklen=40)
    return made[:8].hex(), made[8:]
