from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.protocol import exchange
from regrow.protocol.errors import DecodeError, RegrowError
from regrow.protocol.exchange import Reply, Welcome
from regrow.protocol.frames import ANSWER_OPS, Answer
from tests.regrow.protocol.test_errors import JSON

OPS = st.sampled_from(sorted(ANSWER_OPS.values()))
HEADERS = st.dictionaries(st.text(max_size=5), JSON, max_size=3) | st.fixed_dictionaries(
    {"codec": st.sampled_from(["json", "msgpack", "raw", "yaml"]) | JSON}
)


@given(OPS, HEADERS, st.none() | st.binary(max_size=30) | st.sampled_from([b"null", b"{}", b"[1]", b'{"code":1}']))
def test_any_answer_is_a_reply_or_a_typed_error(op: Any, header: dict[str, Any], body: bytes | None) -> None:
    try:
        found = exchange.outcome(Answer(op, b"1", header, body))
    except RegrowError:
        return
    assert isinstance(found, Reply)


@given(
    st.fixed_dictionaries(
        {},
        optional=dict.fromkeys(("server", "version", "incarnation", "heartbeat_ms", "http"), JSON)
        | {"limits": JSON | st.dictionaries(st.sampled_from(["max_message_bytes", "max_deadline_ms"]), JSON)},
    )
)
def test_any_welcome_gives_sound_limits(header: dict[str, Any]) -> None:
    welcome = Welcome.of(Answer("WELCOME", b"1", header, None))
    assert welcome.max_deadline_s > 0
    assert welcome.max_message_bytes is None or isinstance(welcome.max_message_bytes, int)
    assert exchange.wait_s(exchange.ask("a", "b", None, timeout_s=None, codec="json"), welcome) > 0


def test_an_error_body_that_cannot_be_read_leaves_started_unknown() -> None:
    for body in (b"nonsense", b"[]", None):
        with pytest.raises(DecodeError) as caught:
            exchange.outcome(Answer("ERROR", b"1", {}, body))
        assert caught.value.started == "unknown"


def test_the_wait_for_an_answer_is_a_little_longer_than_the_deadline_and_never_without_limit() -> None:
    ask = exchange.ask("a", "b", None, timeout_s=2.0, codec="json")
    assert exchange.wait_s(ask, Welcome()) == 2.0 + exchange.GRACE_S
    assert exchange.wait_s(ask, Welcome(limits={"max_deadline_ms": 500})) == 0.5 + exchange.GRACE_S
    forever = exchange.ask("a", "b", None, timeout_s=None, codec="json")
    assert exchange.wait_s(forever, Welcome()) == exchange.MAX_DEADLINE_S + exchange.GRACE_S
    assert exchange.wait_s(exchange.PING, Welcome()) == exchange.CONTROL_TIMEOUT_S
