"""Whose request it is, through actors that ask others on a client's account."""

from __future__ import annotations

from typing import Any

from runtime.actor import Actor
from runtime.origin import NOBODY, current_client
from runtime.promise import ClientPromise, Promise
from runtime.ref import Ref
from supervisors import ChildSpec, Supervisor, which_children


class Desk(Actor):
    """Answers who asks."""

    def on_receive(self, message: Any) -> str:
        return current_client()


class Clerk(Actor):
    """Asks the desk for whoever asks it."""

    def __init__(self, desk: Ref) -> None:
        super().__init__()
        self.desk = desk
        self.heard = ""

    def on_receive(self, message: Any) -> Any:
        if message == "what did you hear?":
            return self.heard
        self.heard = self.desk.ask("who?")
        return self.heard


def asked(ref: Ref, message: str, promise: Promise) -> Any:
    ref.request(message, promise)
    return promise.wait(5.0)


def test_a_client_of_the_gateway_is_known_to_whoever_works_for_it() -> None:
    desk = Desk.start()
    inner = Clerk.start(desk)
    clerk = Clerk.start(inner)
    assert asked(desk, "who?", ClientPromise("key billing")) == "key billing"
    assert asked(clerk, "ask", ClientPromise("key billing")) == "key billing"
    for ref in (clerk, inner, desk):
        ref.stop()


def test_an_actor_that_asks_of_its_own_accord_is_a_client_itself() -> None:
    supervisor = Supervisor.start([ChildSpec("desk", Desk)])
    desk = which_children(supervisor)[0][1]
    clerk = Clerk.start(desk)
    clerk.tell("ask")
    assert clerk.ask("what did you hear?") == f"actor {clerk.path}"
    other = Clerk.start(desk)
    assert other.ask("ask") == f"actor {other.path}" != f"actor {clerk.path}"
    for ref in (supervisor, clerk, other):
        ref.stop()


def test_askers_outside_of_actors_are_nobody_in_particular() -> None:
    desk = Desk.start()
    assert desk.ask("who?") == NOBODY
    assert desk.ask("who?", block=False).get(timeout=5.0) == NOBODY
    desk.stop()


def test_outside_of_a_request_there_is_no_client() -> None:
    assert current_client() == NOBODY
