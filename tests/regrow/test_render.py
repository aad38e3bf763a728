"""The tree, crash reports and health as text."""

from __future__ import annotations

from typing import Any

from regrow.render import MAX_NOTE_CHARS, render_crash, render_health, render_tree

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


def test_the_health_of_an_integration_tells_why_its_circuit_is_open_and_when_it_is_tried_again() -> None:
    health = {
        "name": "shop",
        "circuit_state": "open",
        "circuit": {"failures": 3, "threshold": 3, "window_s": 60.0, "retry_after_s": 4.76, "held": False},
        "calls": 4,
        "success_rate": 0.25,
        "latency_p50": 0.00173,
        "latency_p99": 0.0031,
        "window_s": 300.0,
        "last_error": "upstream_error: shop.item: 127.0.0.1 answered 503",
        "last_error_at": 0.0,
    }
    lines = render_health(health).splitlines()
    assert lines[:3] == [
        "shop: open, lets a probe go in 4.8 s",
        "  failures    3 of 3 in 60 s",
        "  calls       4 in the last 300 s, 25.0% of them well, p50 1.73 ms, p99 3.1 ms",
    ]
    assert lines[3].startswith("  last error  upstream_error: shop.item: 127.0.0.1 answered 503 (19")


def test_an_integration_without_a_breaker_and_without_calls_has_its_health_told_too() -> None:
    health = {"name": "ml", "circuit_state": None, "calls": 0, "window_s": 300.0, "last_error": None}
    assert render_health(health) == "ml: has no circuit breaker\n  calls       0 in the last 300 s"
