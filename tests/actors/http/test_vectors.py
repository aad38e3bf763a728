"""Response headers against material that nobody here made."""

from __future__ import annotations

from typing import Any

import pytest

from actors.http.fields import MAX_WAIT_S, limits, retry_after_s
from tests.support.vectors import needs_vectors, vectors

PAUSES = vectors("retry-after/cases.jsonl")
RATE_FIELDS = [
    case
    for name in ("param-list", "param-listlist", "list", "string", "token", "dictionary", "binary")
    for case in vectors(f"structured-fields/{name}.jsonl")
]


@needs_vectors
@pytest.mark.parametrize("case", PAUSES, ids=lambda case: case["id"])
def test_retry_after_is_read_as_urllib3_reads_it(case: dict[str, Any]) -> None:
    expected = {"invalid": None, "clamped-to-max": MAX_WAIT_S}.get(case["expect"], case["expect"])
    assert retry_after_s(case["value"], case["now"]) == expected


@needs_vectors
@pytest.mark.parametrize("case", RATE_FIELDS, ids=lambda case: f"{case['id']}-{case['name']}")
def test_no_structured_field_makes_the_reader_fail_or_learn_what_is_not_there(case: dict[str, Any]) -> None:
    field = ", ".join(case["raw"])
    said = limits({"ratelimit": field}, 0.0, remaining_header="RateLimit", reset_header=None)
    if said.remaining is None:
        return
    # A plain number counts as one; else only a parameter r of a member says how many requests are left.
    params = [dict(member[1]) for member in case.get("expected") or [] if isinstance(member, list) and len(member) == 2]
    assert field.strip(" \t").isdigit() or any("r" in each for each in params) or "expected" not in case


@needs_vectors
def test_the_coverage_is_as_stated() -> None:
    # All of Retry-After; of structured fields those that look like a RateLimit, test_structured reads them all.
    assert (len(PAUSES), len(RATE_FIELDS)) == (10, 62)
