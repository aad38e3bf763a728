"""The test kit for programs that run on regrow.

`ManualClock` drives every timer, back-off and deadline; `Probe` keeps what an actor is sent; `Sequencer` brings
concurrent code into one order; `crash`, `hang` and `stop_with` break any actor at its next message; `Leftovers` tells
what a test left behind, and `regrow.testing.plugin` is all of it for pytest.
"""

from __future__ import annotations

from regrow.testing.clock import ManualClock
from regrow.testing.crasher import Crash, crash, hang, stop_with
from regrow.testing.leftovers import Leftovers
from regrow.testing.probe import Probe
from regrow.testing.sequencer import Sequencer

__all__ = ["Crash", "Leftovers", "ManualClock", "Probe", "Sequencer", "crash", "hang", "stop_with"]
