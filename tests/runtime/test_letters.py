"""Dead letters are counted by why, also those of actors that nobody measures."""

from __future__ import annotations

from typing import Any

import pytest
from gevent.event import Event

from regrow.testing import hang
from runtime.actor import Actor
from runtime.letters import DEAD_LETTERS
from runtime.promise import ActorUnavailable, AskTimeout, MailboxFull


class Echo(Actor):
    mailbox = 3

    def on_receive(self, message: Any) -> Any:
        return message


def counted(reason: str) -> float:
    return DEAD_LETTERS.value(reason)


def test_what_waits_at_an_actor_that_ends_is_counted_told_and_asked_alike() -> None:
    before = counted("actor_died")
    ref = Echo.start()
    hang(ref)
    ref.tell("told")
    asked = ref.ask("asked", block=False)
    ref.kill()
    with pytest.raises(ActorUnavailable):
        asked.get()
    assert counted("actor_died") >= before + 2


def test_a_message_for_a_full_mailbox_is_counted() -> None:
    before = counted("mailbox_full")
    ref = Echo.start()
    go: Event = hang(ref)
    ref.tell("second")
    ref.tell("third")
    with pytest.raises(MailboxFull):
        ref.tell("one too many")
    assert counted("mailbox_full") == before + 1
    go.set()
    ref.stop()


def test_a_request_that_expired_in_the_mailbox_is_counted_when_its_turn_comes() -> None:
    before = counted("expired")
    ref = Echo.start()
    go: Event = hang(ref)
    with pytest.raises(AskTimeout):
        ref.ask("too late", timeout=0.01)
    go.set()
    assert ref.ask("next") == "next"
    assert counted("expired") == before + 1
    ref.stop()
