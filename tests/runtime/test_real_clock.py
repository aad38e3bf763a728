from __future__ import annotations

import gevent

from regrow.testing import ManualClock
from runtime import clock


def test_the_real_clock_goes_on_when_its_alarm_rang_while_a_manual_one_was_installed() -> None:
    rang, later = gevent.event.Event(), gevent.event.Event()
    clock.after(0.01, rang.set)
    clock.after(0.05, later.set)
    with ManualClock():
        assert rang.wait(5)
    assert later.wait(5)
