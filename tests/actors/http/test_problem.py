from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from actors.http.problem import CONTENT_TYPE, problem

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=20) | st.just("x" * 600),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(["type", "title", "status", "detail", "instance"]) | st.text(max_size=5) | st.just("n" * 100)


@given(st.dictionaries(names, values, max_size=20) | values)
def test_any_document_becomes_a_bounded_object_of_json_or_nothing(said: Any) -> None:
    found = problem(msgspec.json.encode(said), CONTENT_TYPE)
    assert (found is not None) == isinstance(said, dict)
    assert len(msgspec.json.encode(found)) < 30_000
    assert found is None or isinstance(found["type"], str)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail(body: bytes) -> None:
    problem(body, CONTENT_TYPE)
