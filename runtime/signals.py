"""Links, monitors and the messages they send: who hears of an actor's end (OTP, "Processes", links and monitors).

A link joins two actors: when one ends abnormally the other does too, unless it traps exits and gets an `Exit` message.
A monitor is one-way, may be stacked, and gives exactly one `Down`; monitoring the dead gives it at once, with
`noproc`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

from runtime.promise import Promise
from runtime.reasons import NOPROC, ExitReason
from runtime.scheduler import DEAD, current_ref, report

if TYPE_CHECKING:
    from runtime.ref import Ref

_numbers = itertools.count(1)


class Exit:
    """The message that a linked actor's end becomes for an actor that traps exits."""

    __slots__ = ("reason", "sender", "void")

    def __init__(self, sender: Ref, reason: ExitReason) -> None:
        self.sender = sender
        self.reason = reason
        self.void = False  # withdrawn by unlink, or heard another way

    def __repr__(self) -> str:
        return f"<Exit of {self.sender}: {self.reason}>"


class Down:
    """The message that a monitor gives, once, when its actor ended."""

    __slots__ = ("monitor", "reason", "ref")

    def __init__(self, monitor: Monitor, ref: Ref, reason: ExitReason) -> None:
        self.monitor = monitor
        self.ref = ref
        self.reason = reason

    def __repr__(self) -> str:
        return f"<Down of {self.ref}: {self.reason}>"


class Monitor:
    """One watch of one actor by one watcher (an actor, which gets a `Down`, or a callback in the hub)."""

    __slots__ = ("callback", "ref", "watcher")

    def __init__(self, ref: Ref, watcher: Ref | None, callback: Callable[[Down], object] | None) -> None:
        self.ref = ref
        self.watcher = watcher
        self.callback = callback

    def fire(self, reason: ExitReason) -> None:
        """Give the Down; called once, by the end of the actor. Never switches."""
        down = Down(self, self.ref, reason)
        watcher = self.watcher
        if watcher is not None:
            if watcher.watching is not None:
                watcher.watching.pop(self, None)
            if watcher.state != DEAD:
                watcher.post(down)
        elif self.callback is not None:
            try:
                self.callback(down)
            except Exception:  # noqa: BLE001 - a broken callback must not keep the others from their Down
                report(self.callback)


def monitor(ref: Ref, callback: Callable[[Down], object] | None = None) -> Monitor:
    """Watch an actor: its end gives the calling actor one `Down`, or calls `callback` where there is no calling actor.

    Raises TypeError outside of an actor without a callback. Never switches.
    """
    watcher = None if callback is not None else current_ref()
    if watcher is None and callback is None:
        raise TypeError("monitor was called outside of an actor, give it a callback")
    watch = Monitor(ref, watcher, callback)
    if ref.state == DEAD:
        watch.fire(NOPROC)
        return watch
    if ref.watchers is None:
        ref.watchers = {}
    ref.watchers[watch] = None
    if watcher is not None:
        if watcher.watching is None:
            watcher.watching = {}
        watcher.watching[watch] = None
    return watch


def demonitor(watch: Monitor) -> None:
    """End a watch and withdraw its Down if that waits in the mailbox (OTP's demonitor with flush). Never switches."""
    if watch.ref.watchers is not None:
        watch.ref.watchers.pop(watch, None)
    watcher = watch.watcher
    if watcher is not None:
        if watcher.watching is not None:
            watcher.watching.pop(watch, None)
        if watcher.mailbox and watch.ref.state == DEAD:
            for at, (message, _) in enumerate(watcher.mailbox):
                if message.__class__ is Down and message.monitor is watch:
                    del watcher.mailbox[at]
                    if watcher.extras is not None:
                        watcher.extras.withdrawn(at)
                    break


def when_ended(ref: Ref) -> Promise:
    """Return a promise of the actor's exit reason; `noproc` when it is dead already. Never switches."""
    promise = Promise()
    monitor(ref, lambda down: promise.resolve(down.reason))
    return promise


def link(ref: Ref) -> None:
    """Join the calling actor with another one; linking to the dead delivers `noproc`. Never switches."""
    me = current_ref()
    if me is None:
        raise TypeError("link was called outside of an actor, only actors have links")
    if ref is me:
        return
    if ref.state == DEAD:
        me.hear_exit(ref, NOPROC)
        return
    join(me, ref)


def join(one: Ref, other: Ref) -> None:
    """Link two living actors; at most one link per pair. Never switches."""
    if one.links is None:
        one.links = {}
    if other.links is None:
        other.links = {}
    one.links[other] = None
    other.links[one] = None


def unlink(ref: Ref) -> None:
    """Part the calling actor from another one; no Exit of that link arrives any more. Never switches."""
    me = current_ref()
    if me is None:
        raise TypeError("unlink was called outside of an actor, only actors have links")
    part(me, ref)


def part(one: Ref, other: Ref) -> None:
    """Remove the link of two actors and withdraw an Exit that waits in `one`'s mailbox. Never switches."""
    if one.links is not None:
        one.links.pop(other, None)
    if other.links is not None:
        other.links.pop(one, None)
    if one.parent is other:
        one.parent_linked = False
    if other.parent is one:
        other.parent_linked = False
    if other.state == DEAD and one.mailbox:
        for message, _ in one.mailbox:
            if message.__class__ is Exit and message.sender is other:
                message.void = True
