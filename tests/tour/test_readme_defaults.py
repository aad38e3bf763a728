from __future__ import annotations

from tests.tour.defaults import in_code, in_readme


def test_the_defaults_of_the_reference_are_those_of_the_code_and_none_is_missing() -> None:
    assert in_readme() == in_code()
