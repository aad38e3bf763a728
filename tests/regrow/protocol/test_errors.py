from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.protocol.errors import ERRORS, Failed, RegrowError, error_from_wire


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_each_error_survives_the_wire(code: str) -> None:
    error = ERRORS[code](
        "what happened",
        started="unknown",
        retryable=False,
        retry_after_s=1.25,
        actor="github",
        incarnation="7",
        crash_id="c1",
        details={"status": 503, "body": {"a": [1]}},
    )
    found = error_from_wire(msgspec.json.decode(msgspec.json.encode(error.to_wire())))
    assert type(found) is ERRORS[code]
    assert vars(found) == vars(error)


def test_a_code_of_a_newer_daemon_is_a_failure_that_names_it() -> None:
    found = error_from_wire({"code": "quota_spent", "message": "no more", "started": "no"})
    assert type(found) is Failed
    assert (str(found), found.started) == ("quota_spent: no more", "no")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=5,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "code": st.sampled_from(sorted(ERRORS)) | JSON,
            "message": JSON,
            "retryable": JSON,
            "started": JSON,
            "retry_after_ms": JSON,
            "actor": JSON,
            "incarnation": JSON,
            "crash_id": JSON,
            "details": JSON,
        },
    )
)
def test_any_object_is_some_error_with_sound_fields(body: dict[str, Any]) -> None:
    found = error_from_wire(body)
    assert isinstance(found, RegrowError)
    assert found.started in {"no", "yes", "unknown"}
    assert found.retryable in {True, False, "unknown"}
    assert found.retry_after_s is None or isinstance(found.retry_after_s, float)
    assert all(one is None or isinstance(one, str) for one in (found.actor, found.incarnation, found.crash_id))
    assert str(found)
    assert repr(found)
