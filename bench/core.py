"""The peers of the core questions."""

from __future__ import annotations

from bench.question import Peer

OTP = Peer("OTP", "otp")
PYKKA_THREADS = Peer("pykka threads", "bench.peers.pykka_actors", needs="pykka", scale=0.1)
PYKKA_GEVENT = Peer("pykka gevent", "bench.peers.pykka_actors", needs="pykka gevent", patched=True, scale=0.1)
THESPIAN = Peer("Thespian", "bench.peers.thespian_actors", needs="thespian", scale=0.1)
XOSCAR = Peer("xoscar", "bench.peers.xoscar_actors", needs="xoscar", scale=0.02)
