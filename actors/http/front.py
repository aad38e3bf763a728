"""The front of an API: takes its calls and hands them to its workers; it never waits for anything."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import uuid
from collections.abc import Mapping
from operator import itemgetter
from typing import Any
from urllib.parse import urlencode

import msgspec

from actors.http import freshness
from actors.http.batching import ITEMS, Batching
from actors.http.client import Request
from actors.http.fields import Limits
from actors.http.operation import Answered, Gathered, Job, KeyRule, NextPage, Operation, Settings, WorkerUp
from actors.http.pages import Pages
from actors.http.template import scalar
from actors.resilience.breaker import REFUSALS, CircuitChanged, refusal
from actors.resilience.bulkhead import Bulkhead
from actors.resilience.cache import LetGo, Lookup
from actors.resilience.circuit import Barred
from actors.resilience.classify import means_unavailable
from actors.resilience.fair import FairQueue
from actors.resilience.guarded import tell_part
from actors.resilience.shared_shelf import LEASE_S
from actors.resilience.shelf import Kept
from regrow.protocol.errors import (
    ActorDown,
    Cancelled,
    DeadlineExceeded,
    InvalidArguments,
    NotFound,
    Overloaded,
    RegrowError,
    Unavailable,
)
from runtime import clock
from runtime.actor import Actor
from runtime.measure import Counter, Gauge
from runtime.messages import Call, WithHeader
from runtime.names import whereis
from runtime.origin import client_of
from runtime.promise import ActorUnavailable, ClientPromise, Promise

REFRESHES = Counter("cache_refreshes_total", "stale answers renewed while they were used", ("actor", "outcome"))
FALLBACKS = Counter("fallbacks_total", "calls answered by something that stands in", ("actor", "kind"))
REFUSED = Counter("bulkhead_refusals_total", "calls that found all workers busy and the queue full", ("actor",))
CALLS = Gauge("bulkhead_calls", "calls that run, and calls that wait for a free worker", ("actor", "state"))

LONGEST_KEY = 255
LONGEST_HEADER = 8000
# After one that failed no other answer is renewed for so long: each call would start one.
REFRESH_PAUSE_S = 1.0
GAVE_UP = Cancelled("the caller gave up", started="no")
CRASHED = ActorDown("the worker crashed")


class InFlight:
    """What each lane works on; it outlives the front, so that a new one can stop what nobody waits for any more."""

    __slots__ = ("by_lane",)

    def __init__(self) -> None:
        self.by_lane: dict[int, Promise] = {}

    def __repr__(self) -> str:
        return f"<InFlight {sorted(self.by_lane)}>"


@dataclasses.dataclass(frozen=True, slots=True)
class _Made:
    """What a call's arguments made: its request, and under which key and in which group its answer is kept."""

    request: Request
    key: str | None
    group: str
    keyed: bool
    authorized: bool


class _Flight:
    """Calls for the same answer, of which one asks and the others wait: a cold cache costs one request."""

    __slots__ = ("followers", "leader")

    def __init__(self, leader: Job) -> None:
        self.leader = leader
        self.followers: dict[Job, None] = {}


@dataclasses.dataclass(frozen=True, slots=True)
class _Displaced:
    """Told by the front to itself: a job of the client with most of them had to make room for another client's."""

    job: Job


class Front(Actor):
    """One configured API as callers see it: its operations are its methods."""

    def __init__(self, settings: Settings, in_flight: InFlight) -> None:
        super().__init__()
        self.exports = {operation.name: operation.exported for operation in settings.operations.values()}
        self._settings = settings
        self._in_flight = in_flight
        self._bulkhead: Bulkhead[Job] = Bulkhead(settings.concurrency, settings.queue)
        self._flights: dict[str, _Flight] = {}
        self._following: FairQueue[Job] = FairQueue(settings.queue)
        self._refresh_from = 0.0
        self._circuit = "closed"
        self._open_until = 0.0
        self._is_certain = False
        self._running = CALLS.cell(settings.name, "running")
        self._waiting = CALLS.cell(settings.name, "waiting")

    def on_start(self) -> None:
        """Find out which workers are there; stop what the last incarnation left under way."""
        declare(self._settings.name)
        for promise in list(self._in_flight.by_lane.values()):
            promise.cancel()
        self._in_flight.by_lane.clear()
        for lane in range(self._settings.concurrency):
            if whereis(self._settings.worker_name(lane)) is None:
                self._bulkhead.occupy(lane)
        self._count()

    def on_stop(self) -> None:
        """Answer everything that is still open, and close the idle connections."""
        for job in self._bulkhead.remove(lambda _: True):
            job.promise.reject(self._stopping())
        for flight in self._flights.values():
            for job in flight.followers:
                job.promise.reject(self._stopping())
        self._flights.clear()
        for promise in list(self._in_flight.by_lane.values()):
            promise.cancel()
        self._settings.client.close()

    def status(self) -> Mapping[str, Any]:
        """Return the circuit as last heard of, and how many calls run and wait. Never switches."""
        return {
            "circuit": self._circuit,
            "running": len(self._in_flight.by_lane),
            "waiting": len(self._bulkhead) + len(self._following),
            "concurrency": self._settings.concurrency,
            "host": self._settings.host,
        }

    def on_call(self, call: Call) -> Pages | None:
        """Start one call; its answer comes later, or is a stream. Raises NotFound, InvalidArguments. Never switches."""
        operation = self._settings.operations.get(call.method)
        if operation is None:
            known = ", ".join(sorted(self._settings.operations)) or "none"
            raise NotFound(f"{self._settings.name} has no operation {call.method!r}, it has: {known}")
        args = operation.exported.check(call.args)
        if operation.max_pages:
            return Pages(self._settings, operation, self._made(operation, args).request)
        if operation.batching is not None:
            self._gather(operation, operation.batching, args)
            return None
        self._begin(self._job(operation, args))
        return None

    def on_receive(self, message: object) -> None:
        """Hear of the circuit and of workers. Never switches."""
        if isinstance(message, CircuitChanged):
            self._circuit = message.state
            self._open_until = clock.now() + message.retry_after_s if message.state == "open" else 0.0
            self._is_certain = message.certain
            if message.state == "open":
                self._flush()
        elif isinstance(message, WorkerUp):
            self._lane_free(message.lane)
        elif isinstance(message, NextPage):
            ends = clock.now() + message.operation.timeout_s
            promise = self.defer()
            promise.started = False
            self._dispatch(Job(message.operation, message.request, None, promise, ends, client=client_of(promise)))
        elif isinstance(message, Gathered):
            self._begin(self._job(message.operation, self._batch_args(message)))
        elif isinstance(message, _Displaced):
            self._displace(message.job)
        else:
            raise TypeError(f"the front of {self._settings.name} got a message of type {type(message).__name__}")

    def _gather(self, operation: Operation, batching: Batching, args: dict[str, Any]) -> None:
        """Have a call sent with others; a batch that could not go is not waited for."""
        settings, rule = self._settings, self._settings.key_rule
        if operation.keyed and rule is not None and rule.argument in args:
            raise InvalidArguments(f"argument {rule.argument}: calls are sent in batches, each of which has its own")
        item = batching.item(args)
        left_s = self._open_until - clock.now()
        if left_s > 0 and self._is_certain:
            REFUSALS.inc(settings.name)
            raise refusal(settings.name, Barred("open", left_s))
        batcher = whereis(settings.batcher_name(operation))
        if batcher is None:
            raise Unavailable(
                f"{settings.doing(operation)}: its batcher has crashed and is started again",
                actor=settings.name,
                retry_after_s=1.0,
            )
        promise = self.defer()
        own = ClientPromise(
            client_of(promise), deadline=promise.deadline, callback=lambda answer: _pass_on(answer, promise)
        )
        promise.on_abandon = _Gathering(own)
        batcher.request(item, own)

    def _batch_args(self, batch: Gathered) -> dict[str, Any]:
        args: dict[str, Any] = {ITEMS: list(batch.items)}
        rule = self._settings.key_rule
        if batch.operation.keyed and rule is not None and rule.generate:
            args[rule.argument] = batch.key
        return args

    def _job(self, operation: Operation, args: dict[str, Any]) -> Job:
        made = self._made(operation, args)
        ends = clock.now() + operation.timeout_s
        # From here on the call is answered through its promise, whatever happens; the worker says when it is sent.
        promise = self.defer()
        promise.started = False
        return Job(
            operation,
            made.request,
            made.key,
            promise,
            ends,
            client=client_of(promise),
            keyed=made.keyed,
            group=made.group,
            authorized=made.authorized,
        )

    def _made(self, operation: Operation, args: dict[str, Any]) -> _Made:
        settings, headers = self._settings, self._settings.headers
        keyed: dict[str, str] = {}
        if operation.keyed and settings.key_rule is not None:
            keyed = _idempotency_key(settings.key_rule, args)
            headers = {**headers, **keyed}
        own = _own_headers(operation, args)
        if own:
            headers = {**headers, **own}
        filled = operation.fill(args)
        request = settings.request(operation, filled, headers)
        key = None
        if operation.keeps and not own.keys() & freshness.CALLERS_OWN_RULES:
            # Whatever differs between calls is part of the key, so that no answer is found that Vary forbids; so is the
            # order of the values that one name has.
            parts = [f"{filled.path}?{urlencode(sorted(filled.query, key=itemgetter(0)))}", operation.name]
            parts += [f"{name}: {value}" for name, value in sorted(own.items())]
            if request.body is not None:
                parts.append(hashlib.sha256(request.body).hexdigest())
            key = "\n".join(parts)
        authorized = not freshness.CREDENTIALS.isdisjoint(own)
        return _Made(request, key, filled.path, keyed=bool(keyed), authorized=authorized)

    def _begin(self, job: Job) -> None:
        cache = None if job.key is None else whereis(f"{self._settings.name}/cache")
        if cache is None or job.key is None:
            self._dispatch(job)
        else:
            # Without a deadline of its own: the cache answers within that time, or dies.
            lookup = Lookup(job.key, wait_s=self._wait_s(job))
            cache.request(lookup, Promise(callback=lambda found: self._looked_up(job, found)))

    def _wait_s(self, job: Job) -> float:
        """How long another daemon may be waited for: so that half of the caller's time is left for asking oneself."""
        if not self._settings.shares_answers or job.followed or not job.operation.caches:
            return 0.0
        return min(LEASE_S, max(0.0, (job.stops - clock.now()) / 2))

    def _let_go(self, job: Job) -> None:
        """Let another daemon ask: no answer comes that could be kept."""
        if self._settings.shares_answers and job.key is not None:
            tell_part(f"{self._settings.name}/cache", LetGo(job.key))

    def _looked_up(self, job: Job, found: Promise) -> None:
        kept = found.value if found.error is None else None
        if isinstance(kept, Kept):
            now = clock.now()
            if kept.usable(now):
                self._answer_from_cache(job, kept, "fresh" if kept.fresh(now) else "stale")
                if not kept.fresh(now):
                    self._refresh(job, kept)
                return
            self._remember(job, kept)
        flight = None if job.key is None else self._flights.get(job.key)
        if job.key is None or job.followed or not job.operation.caches or job.promise.done:
            if flight is None:
                self._let_go(job)
            self._dispatch(job)
        elif flight is None:
            self._flights[job.key] = flight = _Flight(job)
            self._lead(flight, job)
        elif self._bulkhead.overtakes(job.client, flight.leader.client, flight.leader):
            # Behind a call of another client that waits for many turns, this one would wait for as many.
            leader, flight.leader = flight.leader, job
            self._bulkhead.leave(leader.client, leader)
            self._follow(flight, leader)
            self._dispatch(job)
        else:
            self._follow(flight, job)

    def _follow(self, flight: _Flight, job: Job) -> None:
        displaced = self._following.put(job.client, job)
        if displaced is not job:
            job.followed = True
            flight.followers[job] = None
            job.promise.on_abandon = lambda: self._unfollow(job)
        if displaced is not None:
            self._unfollow(displaced)
            self._fail(displaced, self._overloaded())
        self._count()

    def _unfollow(self, job: Job) -> None:
        self._following.discard(job.client, job)
        flight = None if job.key is None else self._flights.get(job.key)
        if flight is not None:
            flight.followers.pop(job, None)
        self._count()

    def _refresh(self, job: Job, kept: Kept) -> None:
        """Ask for a newer answer while the stale one is used: one for each key, and only where no caller waits."""
        now = clock.now()
        if job.key is None or kept.asked or job.key in self._flights:
            return
        is_busy = len(self._bulkhead.busy) >= self._bulkhead.lanes
        if is_busy or now < max(self._refresh_from, self._open_until):
            self._let_go(job)
            return
        renewing = dataclasses.replace(
            job, promise=Promise(), ends=now + job.operation.timeout_s, refreshes=True, followed=False
        )
        self._remember(renewing, kept)
        self._flights[job.key] = flight = _Flight(renewing)
        self._lead(flight, renewing)

    def _remember(self, job: Job, kept: Kept) -> None:
        """Ask whether the kept answer still holds, when it says how that is asked."""
        job.kept = kept
        known = msgspec.msgpack.decode(kept.content, type=Answered)
        asking = freshness.conditions(known.headers) if job.request.method == "GET" else {}
        if asking and job.known is None:
            job.known = known
            job.request = dataclasses.replace(job.request, headers={**job.request.headers, **asking})

    def _lead(self, flight: _Flight, job: Job) -> None:
        flight.leader = job
        self._dispatch(job)

    def _led(self, job: Job, error: RegrowError | None) -> None:
        """Let those go on that wait for this call's answer; a failure that is its own alone says nothing for them."""
        flight = None if job.key is None else self._flights.get(job.key)
        if job.key is None or flight is None or flight.leader is not job:
            return
        if error is not None:
            self._let_go(job)
        if job.refreshes:
            REFRESHES.inc(self._settings.name, "done" if error is None else "failed")
            if error is not None:
                self._refresh_from = clock.now() + REFRESH_PAUSE_S
        if isinstance(error, DeadlineExceeded | Cancelled | ActorDown):
            while flight.followers:
                heir = next(iter(flight.followers))
                self._unfollow(heir)
                if not heir.promise.done:
                    self._lead(flight, heir)
                    return
        del self._flights[job.key]
        for follower in flight.followers:
            self._following.discard(follower.client, follower)
            if follower.promise.done:
                continue
            if error is None:
                self._begin(follower)
            else:
                self._fail(follower, error)
        self._count()

    def _dispatch(self, job: Job) -> None:
        if job.promise.done:
            return
        left_s = self._open_until - clock.now()
        if left_s > 0 and self._is_certain:
            self._refuse(job, left_s)
            return
        while (lane := self._bulkhead.take()) is not None:
            if self._hand(lane, job):
                return
            # The lane stays taken until its worker says that it is up again.
        if left_s > 0:
            self._refuse(job, left_s)
            return
        displaced = self._bulkhead.wait(job.client, job)
        if displaced is job:
            self._fail(job, self._overloaded())
        else:
            job.promise.on_abandon = lambda: self._left(job)
            if displaced is not None:
                # Not at once: what follows from it may displace others in turn.
                self.ref.post(_Displaced(displaced))
        self._count()

    def _left(self, job: Job) -> None:
        """Forget a call whose caller gave up while it waited for a worker."""
        self._bulkhead.leave(job.client, job)
        self._led(job, GAVE_UP)
        self._count()

    def _displace(self, job: Job) -> None:
        """Answer a call that had to make room; who waits for the same answer goes on without it."""
        if not job.promise.done:
            self._answer_instead(job, self._overloaded())
            self._led(job, GAVE_UP)

    def _hand(self, lane: int, job: Job) -> bool:
        ref = whereis(self._settings.worker_name(lane))
        if ref is None:
            return False
        # The worker asks the limiter and others in the name of whoever asked here.
        done = ClientPromise(job.client, callback=lambda answer: self._worked(lane, job, answer))
        job.promise.on_abandon = done.cancel
        self._in_flight.by_lane[lane] = done
        self._count()
        ref.request(job, done)
        return True

    def _worked(self, lane: int, job: Job, answer: Promise) -> None:
        if self._in_flight.by_lane.get(lane) is answer:
            del self._in_flight.by_lane[lane]
        job.promise.on_abandon = None
        if self._was_left_undone(lane, answer) and not job.promise.done and self.ref.is_alive():
            # Another worker can do it as well.
            self._dispatch(job)
        elif answer.error is None:
            job.promise.resolve(answer.value)
            self._led(job, None)
        elif isinstance(answer.error, RegrowError):
            self._fail(job, answer.error)
        else:
            # In process a crash is its own exception; what it means to callers elsewhere is the gateway's to say.
            job.promise.reject(answer.error)
            self._led(job, CRASHED)
        if self.ref.is_alive():
            if whereis(self._settings.worker_name(lane)) is None:
                self._count()
            else:
                self._lane_free(lane)

    def _was_left_undone(self, lane: int, answer: Promise) -> bool:
        """Tell whether a worker was killed before it began a call, as opposed to a part that it could not find."""
        error = answer.error
        return isinstance(error, ActorUnavailable) and error.actor == self._settings.worker_name(lane)

    def _lane_free(self, lane: int) -> None:
        if lane in self._in_flight.by_lane:
            return
        self._bulkhead.release(lane)
        while (job := self._bulkhead.next()) is not None:
            if not job.promise.done:
                self._dispatch(job)
                break
        self._count()

    def _flush(self) -> None:
        """Refuse all that waits: the circuit has just opened."""
        for job in self._bulkhead.remove(lambda _: True):
            if not job.promise.done:
                self._refuse(job, self._open_until - clock.now())
        self._count()

    def _fail(self, job: Job, error: RegrowError) -> None:
        """Answer with what stands in, else with the error; whoever waits for the same answer gets the same."""
        self._answer_instead(job, error)
        self._led(job, error)

    def _answer_instead(self, job: Job, error: RegrowError) -> None:
        fallback = job.operation.fallback
        if job.refreshes or not means_unavailable(error):
            job.promise.reject(error)
        elif fallback is None or fallback == "cache":
            if job.kept is None or clock.now() >= job.kept.stale_until:
                job.promise.reject(error)
            else:
                FALLBACKS.inc(self._settings.name, "cache")
                self._answer_from_cache(job, job.kept, "stale", {"fallback": "cache", "error": error.code})
        else:
            FALLBACKS.inc(self._settings.name, "default")
            header = {"fallback": "default", "error": error.code}
            job.promise.resolve(WithHeader(copy.deepcopy(fallback.answer), header))

    def _answer_from_cache(self, job: Job, kept: Kept, word: str, more: Mapping[str, Any] | None = None) -> None:
        answered = msgspec.msgpack.decode(kept.content, type=Answered)
        age_s = clock.now() - kept.made_at
        told = answered.told(self._settings)
        if "age" in self._settings.reply_headers:
            told["age"] = str(int(age_s))
        header: dict[str, Any] = {
            "status": answered.status,
            "headers": told,
            "cache": word,
            "age_ms": round(age_s * 1000),
            **(more or {}),
        }
        doing = self._settings.doing(job.operation)
        try:
            if job.operation.judge is not None:
                verdict = job.operation.judge(answered.response(), Limits(), doing)
                value = answered.value(job.operation, doing) if verdict is None else verdict.value
            else:
                value = answered.value(job.operation, doing)
        except RegrowError as error:
            job.promise.reject(error)
        else:
            job.promise.resolve(WithHeader(value, header))

    def _refuse(self, job: Job, left_s: float) -> None:
        REFUSALS.inc(self._settings.name)
        self._fail(job, refusal(self._settings.name, Barred("open", max(0.0, left_s))))

    def _stopping(self) -> Unavailable:
        return Unavailable(f"{self._settings.name} is stopping", actor=self._settings.name, retry_after_s=1.0)

    def _overloaded(self) -> Overloaded:
        REFUSED.inc(self._settings.name)
        return Overloaded(
            f"{self._settings.name}: {self._bulkhead.lanes} calls run and {self._bulkhead.bound} wait, "
            "come back later or raise concurrency",
            actor=self._settings.name,
            retry_after_s=1.0,
        )

    def _count(self) -> None:
        self._running.value = len(self._in_flight.by_lane)
        self._waiting.value = len(self._bulkhead) + len(self._following)


class _Gathering:
    """A call that is with the batcher, which knows whether it has been sent."""

    __slots__ = ("_own",)

    def __init__(self, own: Promise) -> None:
        self._own = own

    def __call__(self) -> None:
        self._own.cancel()

    def withdraw(self) -> bool:
        """Take it back if it has not been sent, and tell whether it has."""
        return self._own.has_begun()


def _pass_on(answer: Promise, promise: Promise) -> None:
    if answer.error is None:
        promise.resolve(answer.value)
    else:
        promise.reject(answer.error)


def _idempotency_key(rule: KeyRule, args: dict[str, Any]) -> dict[str, str]:
    """Take the caller's key out of the arguments, or make one; it stays the same over all tries."""
    brought = args.pop(rule.argument, None)
    if brought is None:
        return {rule.header: str(uuid.uuid4())} if rule.generate else {}
    if not isinstance(brought, str) or not 0 < len(brought) <= LONGEST_KEY:
        raise InvalidArguments(f"argument {rule.argument}: a text of 1 to {LONGEST_KEY} characters")
    if not (brought.isascii() and brought.isprintable()):
        raise InvalidArguments(f"argument {rule.argument}: holds a character that no header carries")
    return {rule.header: brought}


def _own_headers(operation: Operation, args: dict[str, Any]) -> dict[str, str]:
    """Take the arguments that headers carry out of the others."""
    own: dict[str, str] = {}
    for argument, header in operation.headers_of.items():
        value = args.pop(argument, None)
        if value is None:
            continue
        text = scalar(argument, value)
        if len(text) > LONGEST_HEADER or not (text.isascii() and text.isprintable()):
            raise InvalidArguments(
                f"argument {argument}: holds a character that no header carries, or more than {LONGEST_HEADER} of them"
            )
        own[header] = text
    return own


def declare(integration: str) -> None:
    """Make every series of a front exist. Never switches."""
    for kind in ("cache", "default"):
        FALLBACKS.declare(integration, kind)
    for state in ("running", "waiting"):
        CALLS.declare(integration, state)
    for outcome in ("done", "failed"):
        REFRESHES.declare(integration, outcome)
    REFUSED.declare(integration)
