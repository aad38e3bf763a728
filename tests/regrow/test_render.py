"""The tree and crash reports as text."""

from __future__ import annotations

from typing import Any

from regrow.render import MAX_NOTE_CHARS, render_crash, render_tree

REPORT: dict[str, Any] = {
    "crash_id": "c1-2",
    "actor": "greeter",
    "class": "Greeter",
    "incarnation": 7,
    "at": 1_700_000_000.0,
    "reason": "ValueError",
    "message": "no",
    "last_message": "call greet(name)",
}


def node(path: str, *children: dict[str, Any], **facts: Any) -> dict[str, Any]:
    supervisor = {"kind": "supervisor", "strategy": "one_for_one"} if children else {"kind": "worker"}
    return {"path": path, "state": "running", "children": list(children), **supervisor, **facts}


def test_each_actor_has_a_line_under_its_supervisor() -> None:
    tree = node("root", node("root/a", node("root/a/b")), node("root/c"))
    assert render_tree(tree, colour=False).splitlines() == [
        "root (one_for_one)  running",
        "|- a (one_for_one)  running",
        "|  `- b             running",
        "`- c                running",
    ]


def test_restarts_waiting_messages_and_details_are_told() -> None:
    detail = {"pid": 12, "state": "idle", "secret": "x"}
    tree = node("root", node("root/a", restarts=2, mailbox=3, last_reason="crashed: E", since=0, detail=detail))
    line = render_tree(tree, colour=False).splitlines()[1]
    assert "2 restarts, 3 waiting, state=idle, pid=12, since " in line
    assert line.endswith("before: crashed: E")
    assert "secret" not in line


def test_why_an_actor_is_not_running_is_told() -> None:
    tree = node("root", node("root/a", state="failed", why="gave up (shutdown), tries again in 1 s"))
    assert (
        render_tree(tree, colour=False).splitlines()[1]
        == "`- a                failed   gave up (shutdown), tries again in 1 s"
    )


def test_a_state_that_the_line_shows_already_is_not_told_again() -> None:
    tree = node("root", node("root/a", state="waiting", detail={"state": "waiting"}))
    assert "state=" not in render_tree(tree, colour=False)


def test_members_of_a_pool_that_tell_the_same_share_a_line() -> None:
    pool = [node(f"root/worker-{n}") for n in range(1, 26)]
    tree = node("root", *pool, node("root/front"))
    assert render_tree(tree, colour=False).splitlines()[1:] == [
        "|- worker-1 .. worker-25  running",
        "`- front                  running",
    ]
    assert len(render_tree(tree, colour=False, collapse=False).splitlines()) == 27


def test_the_member_that_differs_has_a_line_of_its_own() -> None:
    pool = [node(f"root/worker-{n}", mailbox=int(n == 5)) for n in range(1, 10)]
    shown = [line.split("  ")[0] for line in render_tree(node("root", *pool), colour=False).splitlines()[1:]]
    assert shown == ["|- worker-1 .. worker-4", "|- worker-5", "`- worker-6 .. worker-9"]


def test_two_alike_are_both_shown() -> None:
    tree = node("root", node("root/worker-1"), node("root/worker-2"))
    assert len(render_tree(tree, colour=False).splitlines()) == 3


def test_a_long_reason_is_cut() -> None:
    tree = node("root", node("root/a", why="x" * 1000))
    assert len(render_tree(tree, colour=False).splitlines()[1]) < MAX_NOTE_CHARS + 40


def test_colour_is_only_put_around_the_state() -> None:
    plain, coloured = (render_tree(node("root"), colour=colour) for colour in (False, True))
    assert "\x1b" not in plain
    assert coloured == "root  \x1b[32mrunning\x1b[0m"


def test_children_that_are_not_listed_are_counted() -> None:
    assert "12 more children" in render_tree(node("root", node("root/pool", omitted=12)), colour=False)


def test_a_listed_crash_is_told_in_three_lines() -> None:
    lines = render_crash(REPORT).splitlines()
    assert lines[0].startswith("crash c1-2 of greeter (Greeter, incarnation 7) at 20")
    assert lines[1:] == ["  ValueError: no", "  while it handled: call greet(name)"]


def test_a_whole_report_has_its_traceback() -> None:
    shown = render_crash(REPORT | {"traceback": "Traceback\n  line\n", "handled": 4, "mailbox": 1})
    assert shown.splitlines()[3:] == ["  4 messages handled before, 1 waiting", "  Traceback", "    line"]
