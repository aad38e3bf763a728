"""Circuits and quotas in Redis, so that several daemons decide as one: each step atomic, on Redis's own clock.

An outage is noticed within a quarter of a second and then remembered for a second, in which nobody waits for Redis
again: the caller gets `SharedDown` at once and does what the configuration says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
import redis
from redis.backoff import NoBackoff
from redis.commands.core import Script
from redis.retry import Retry

from actors.resilience.circuit import CircuitRecord
from actors.resilience.quota import MAX_PAUSE_S, MIN_WAIT_S, SLOTS, Admitted, Lesson, Wait
from config.secret import Secret
from runtime import clock, events

T = TypeVar("T")

SOCKET_TIMEOUT_S = 0.25
DOWN_PAUSE_S = 1.0
MAX_CONNECTIONS = 4
# A record outlives the longest manual hold; after so long without a call nobody misses it.
RECORD_TTL_MS = 2 * 24 * 3600 * 1000

_LOAD = """
local time = redis.call('TIME')
local kept = redis.pcall('HMGET', KEYS[1], 'v', 'r')
if kept.err or (kept[1] and not string.match(kept[1], '^%d+$')) or #(kept[1] or '') > 15 then
  redis.call('DEL', KEYS[1])
  kept = {}
end
return {time[1], time[2], kept[1] or '0', kept[2] or ''}
"""

_SAVE = """
if (redis.call('HGET', KEYS[1], 'v') or '0') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'v', ARGV[1] + 1, 'r', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""

# Times are kept with six digits after the point: Lua's own formatting of numbers would drop what lies below a second.
# Redis keeps its time by the wall: after that was set back, what lies in the future counts as of now.
_ADMIT = """
local window, limit, slots, tokens, cost, burst =
  tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local time = redis.call('TIME')
local now, now_us = time[1] + time[2] / 1000000, time[1] * 1000000 + time[2]
local slot_s = window / slots
local current = math.floor(now / slot_s)
local fields, used, issued, ceiling, ceiling_until, paused_until = {}, 0, 0, nil, 0, 0
local spent, spent_at = 0, now_us
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local name, value = all[i], tonumber(all[i + 1])
  if name == 'issued' then issued = value
  elseif name == 'ceiling' then ceiling = value
  elseif name == 'ceiling_until' then ceiling_until = value
  elseif name == 'paused_until' then paused_until = value
  elseif name == 'spent' then spent = value
  elseif name == 'spent_at' then spent_at = value
  elseif burst == 0 and string.sub(name, 1, 2) == 's:' then
    local slot = tonumber(string.sub(name, 3))
    if slot > current then
      redis.call('HDEL', KEYS[1], name)
      redis.call('HINCRBY', KEYS[1], 's:' .. string.format('%d', current), value)
      slot = current
    end
    if (slot + slots + 1) * slot_s <= now + 0.000001 then redis.call('HDEL', KEYS[1], name)
    else used = used + value; fields[#fields + 1] = {slot, value} end
  end
end
local wait = math.max(0, paused_until - now)
if ceiling and now >= ceiling_until then
  redis.call('HDEL', KEYS[1], 'ceiling', 'ceiling_until', 'learned_from')
elseif ceiling and issued + tokens > ceiling then wait = math.max(wait, ceiling_until - now) end
local per_s = limit / window
if burst > 0 then
  if spent_at > now_us then redis.call('HSET', KEYS[1], 'spent_at', string.format('%.0f', now_us)) end
  spent = math.max(0, spent - math.max(0, now_us - spent_at) / 1000000 * per_s)
  used = math.ceil(spent - 0.000001)
  local missing = spent + tokens - burst
  if missing > 0.000001 then wait = math.max(wait, missing / per_s) end
elseif limit > 0 and used + tokens > limit then
  table.sort(fields, function(a, b) return a[1] < b[1] end)
  local index = used + tokens - 1 - limit
  local cycles, over = math.floor(index / limit), index % limit
  local freed, own = 0, nil
  for _, field in ipairs(fields) do
    freed = freed + field[2]
    if freed > over then own = (field[1] + slots + 1) * slot_s - now; break end
  end
  if not own then own = window end
  wait = math.max(wait, own + cycles * window)
end
if wait > 0 then return {0, math.ceil(wait * 1000000), used} end
if cost == 0 then return {1, issued, used} end
issued = redis.call('HINCRBY', KEYS[1], 'issued', cost)
local lives = math.max(2 * window, ceiling_until - now, paused_until - now)
if burst > 0 then
  spent = spent + cost
  redis.call('HSET', KEYS[1], 'spent', string.format('%.17g', spent), 'spent_at', string.format('%.0f', now_us))
  lives = math.max(lives, spent / per_s)
elseif limit > 0 then redis.call('HINCRBY', KEYS[1], 's:' .. string.format('%d', current), cost) end
redis.call('PEXPIRE', KEYS[1], math.ceil((lives + 60) * 1000))
return {1, issued, used + cost}
"""

_LEARN = """
local ticket, remaining, reset, pause, longest =
  tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local time = redis.call('TIME')
local now = time[1] + time[2] / 1000000
local kept = redis.call('HMGET', KEYS[1], 'issued', 'ceiling', 'learned_from', 'paused_until')
local lives = 0
if pause >= 0 then
  local ends = math.max(tonumber(kept[4] or '0'), now + math.min(pause, longest))
  redis.call('HSET', KEYS[1], 'paused_until', string.format('%.6f', ends))
  lives = ends - now
end
if remaining >= 0 then
  ticket = math.min(ticket, tonumber(kept[1] or '0'))
  local ceiling = ticket + remaining
  if kept[2] and ticket < tonumber(kept[3] or '0') then
    redis.call('HSET', KEYS[1], 'ceiling', string.format('%d', math.min(tonumber(kept[2]), ceiling)))
  else
    local lasts = math.min(reset, longest)
    redis.call('HSET', KEYS[1], 'ceiling', string.format('%d', ceiling), 'learned_from', string.format('%d', ticket),
      'ceiling_until', string.format('%.6f', now + lasts))
    lives = math.max(lives, lasts)
  end
end
if redis.call('PTTL', KEYS[1]) < (lives + 60) * 1000 then
  redis.call('PEXPIRE', KEYS[1], math.ceil((lives + 60) * 1000))
end
return 1
"""

_GIVE_BACK = """
local cost = tonumber(ARGV[1])
local kept = redis.call('HMGET', KEYS[1], 'issued', 'spent')
local issued, spent = tonumber(kept[1] or '0'), tonumber(kept[2] or '0')
if issued > 0 then redis.call('HSET', KEYS[1], 'issued', string.format('%d', math.max(0, issued - cost))) end
if spent > 0 then redis.call('HSET', KEYS[1], 'spent', string.format('%.17g', math.max(0, spent - cost))) end
local slots = {}
for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
  if string.sub(field, 1, 2) == 's:' then slots[#slots + 1] = tonumber(string.sub(field, 3)) end
end
table.sort(slots, function(a, b) return a > b end)
for _, slot in ipairs(slots) do
  if cost <= 0 then break end
  local name = 's:' .. string.format('%d', slot)
  local left = redis.call('HINCRBY', KEYS[1], name, -cost)
  cost = -left
  if left <= 0 then redis.call('HDEL', KEYS[1], name) end
end
return 1
"""

_FORGET = """
for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
  if name ~= 'issued' then redis.call('HDEL', KEYS[1], name) end
end
return 1
"""


class SharedDown(Exception):
    """Redis does not answer; `retry_after_s` says when it is tried again."""

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"the shared Redis does not answer, it is tried again in {retry_after_s:.3g} s")
        self.retry_after_s = retry_after_s


def shared_key(integration: str, address: str, what: str) -> str:
    """Return the key under which daemons share: the same integration name and the same address. Never switches."""
    place = hashlib.sha256(address.encode()).hexdigest()[:12]
    return f"regrow:{{{integration}:{place}}}:{what}"


class RedisLink:
    """Connections to the shared Redis for one actor, with explicit timeouts and without retries."""

    def __init__(self, url: Secret, owner: str) -> None:
        self._owner = owner
        self._down_until = 0.0
        self._up = True
        self._client = redis.Redis.from_url(
            url.reveal(),
            socket_timeout=SOCKET_TIMEOUT_S,
            socket_connect_timeout=SOCKET_TIMEOUT_S,
            max_connections=MAX_CONNECTIONS,
            retry=Retry(NoBackoff(), 0),
        )

    def __repr__(self) -> str:
        return f"<RedisLink of {self._owner} {self.state}>"

    @property
    def state(self) -> str:
        """`up` or `down`, as last seen."""
        return "up" if self._up else "down"

    def script(self, text: str) -> Script:
        """Return a Lua script bound to this link. Never switches."""
        return self._client.register_script(text)

    def run(self, script: Script, key: str, *args: str | int | float | bytes) -> list[Any]:
        """Run a script on one key; raises SharedDown. Switches greenlets."""
        remaining_s = self._down_until - clock.now()
        if remaining_s > 0:
            raise SharedDown(remaining_s)
        try:
            try:
                answer = script(keys=[key], args=list(args))
            except redis.TimeoutError:
                raise
            except redis.ConnectionError:
                # A connection that idled over a restart of Redis is dead, a new one may work. Counting a token twice
                # is harmless, and a record that was saved already has another version.
                answer = script(keys=[key], args=list(args))
        except redis.RedisError as error:
            self._went(False, type(error).__name__)
            self._down_until = clock.now() + DOWN_PAUSE_S
            raise SharedDown(DOWN_PAUSE_S) from None
        self._went(True, None)
        return answer if isinstance(answer, list) else [answer]

    def close(self) -> None:
        """Close the connections; the next use opens new ones. Never switches."""
        self._client.close()
        self._client.connection_pool.disconnect()

    def _went(self, up: bool, why: str | None) -> None:
        if up != self._up:
            self._up = up
            if up:
                events.publish("redis.found", actor=self._owner)
            else:
                events.publish("redis.lost", actor=self._owner, error=why)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A circuit as it stood at `now` (seconds on its keeper's clock), with the version that saving it needs."""

    record: CircuitRecord
    now: float
    version: int


class SharedCircuit:
    """A circuit in Redis: whoever saves must have seen the newest version."""

    def __init__(self, link: RedisLink, key: str) -> None:
        self.link = link
        self._key = key
        self._load = link.script(_LOAD)
        self._save = link.script(_SAVE)

    def load(self) -> Loaded:
        """Return the circuit, a new one in place of what cannot be read; raises SharedDown. Switches greenlets."""
        seconds, micros, version, text = self.link.run(self._load, self._key)
        try:
            record = msgspec.json.decode(text, type=CircuitRecord) if text else CircuitRecord()
        except (msgspec.DecodeError, UnicodeDecodeError):
            # Not ours, or of another version: a breaker that crashed on it would do so at each call.
            record = CircuitRecord()
        return Loaded(record, int(seconds) + int(micros) / 1e6, int(version))

    def save(self, loaded: Loaded) -> bool:
        """Keep the changed record; False when another daemon was faster. Raises SharedDown. Switches greenlets."""
        text = msgspec.json.encode(loaded.record)
        return bool(self.link.run(self._save, self._key, loaded.version, text, RECORD_TTL_MS)[0])


class SharedQuota:
    """The arithmetic of `Quota` inside Redis."""

    def __init__(
        self, link: RedisLink, key: str, limit: int | None, window_s: float, *, burst: int | None = None
    ) -> None:
        self.link = link
        self._key = key
        self._limit = limit or 0
        self._window_s = window_s
        self._burst = burst or 0
        self._admit = link.script(_ADMIT)
        self._learn = link.script(_LEARN)
        self._give_back = link.script(_GIVE_BACK)
        self._forget = link.script(_FORGET)

    def admit(self, cost: int = 1) -> Admitted | Wait:
        """Take `cost` tokens, or say how long to wait for them; raises SharedDown. Switches greenlets."""
        granted, number, _ = self._ask(cost, cost)
        return Admitted(number) if granted else Wait(max(number / 1e6, MIN_WAIT_S))

    def wait_s(self, tokens: int) -> float:
        """Return the seconds until so many more tokens could go if nobody else asks; raises SharedDown.

        Switches greenlets.
        """
        granted, number, _ = self._ask(tokens, 0)
        return 0.0 if granted else max(number / 1e6, MIN_WAIT_S)

    def used(self) -> int:
        """Return how many tokens of all daemons lie in the window, or miss from the bucket; raises SharedDown.

        Switches greenlets.
        """
        return self._ask(1, 0)[2]

    def learn(self, lesson: Lesson) -> None:
        """Take over what a response said; raises SharedDown. Switches greenlets."""
        self.link.run(
            self._learn,
            self._key,
            lesson.ticket,
            -1 if lesson.remaining is None else lesson.remaining,
            self._window_s if lesson.reset_s is None else lesson.reset_s,
            -1 if lesson.pause_s is None else lesson.pause_s,
            MAX_PAUSE_S,
        )

    def give_back(self, cost: int = 1) -> None:
        """Take back the newest tokens; raises SharedDown. Switches greenlets."""
        self.link.run(self._give_back, self._key, cost)

    def forget(self) -> None:
        """Forget what was spent and learned; raises SharedDown. Switches greenlets."""
        self.link.run(self._forget, self._key)

    def _ask(self, tokens: int, cost: int) -> tuple[bool, int, int]:
        answer = self.link.run(self._admit, self._key, self._window_s, self._limit, SLOTS, tokens, cost, self._burst)
        return bool(answer[0]), int(answer[1]), int(answer[2])


def changed(before: bytes, record: CircuitRecord) -> bool:
    """Tell whether a record differs from how it was loaded. Never switches."""
    return msgspec.json.encode(record) != before


def snapshot(record: CircuitRecord) -> bytes:
    """Return a record as it is now, for `changed`. Never switches."""
    return msgspec.json.encode(record)


def close_quietly(backend: SharedCircuit | SharedQuota | None) -> None:
    """Close a backend's connections when there is one. Never switches."""
    if backend is not None:
        backend.link.close()


def attempt(work: Callable[[], T]) -> T | None:
    """Return what `work` returns, None when Redis is down. Switches greenlets."""
    try:
        return work()
    except SharedDown:
        return None
