from __future__ import annotations

import copy
import json
import logging
import pickle
import pprint
import traceback
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from config import secret
from config.secret import MASK, Secret, redact, register

VALUE = "kx9-very-secret-v7"


@pytest.mark.parametrize(
    "show",
    [
        str,
        repr,
        "{}".format,
        "{!r:>30}".format,
        "{:>30}".format,
        lambda value: f"{value}",
        lambda value: "%s" % value,  # noqa: UP031 - what old code and logging do
        lambda value: pprint.pformat({"token": [value]}),
        lambda value: json.dumps({"token": value}, default=str),
        lambda value: msgspec.json.encode({"token": value}, enc_hook=str).decode(),
        lambda value: str([value]) + str({"token": value}) + str((value,)),
        lambda value: str(dir(value)),
    ],
)
def test_nothing_that_prints_shows_the_value(show: Callable[[object], str]) -> None:
    assert VALUE not in show(Secret(VALUE))


def test_reveal_gives_the_value() -> None:
    assert Secret(VALUE).reveal() == VALUE


def test_json_refuses_a_secret() -> None:
    with pytest.raises(TypeError):
        json.dumps(Secret(VALUE))


def test_msgspec_refuses_a_secret() -> None:
    with pytest.raises(TypeError):
        msgspec.json.encode(Secret(VALUE))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pickling_is_refused(protocol: int) -> None:
    with pytest.raises(TypeError, match="never pickled"):
        pickle.dumps(Secret(VALUE), protocol)


def test_a_secret_has_no_dict_to_look_into() -> None:
    assert not hasattr(Secret(VALUE), "__dict__")


def test_copies_are_the_secret_itself() -> None:
    token = Secret(VALUE)
    assert copy.copy(token) is token
    assert copy.deepcopy({"token": token})["token"] is token


def test_equality_and_hash_are_those_of_the_value() -> None:
    assert Secret(VALUE) == Secret(VALUE)
    assert hash(Secret(VALUE)) == hash(Secret(VALUE))
    assert Secret(VALUE) != Secret(VALUE + "x")
    assert Secret(VALUE) != VALUE


def test_a_secret_is_made_from_text_only() -> None:
    with pytest.raises(TypeError, match="found bytes") as caught:
        Secret(VALUE.encode())  # type: ignore[arg-type]
    assert VALUE not in str(caught.value)


def test_a_log_record_of_a_secret_shows_the_mask() -> None:
    record = logging.makeLogRecord({"msg": "token %s of %r", "args": (Secret(VALUE), Secret(VALUE))})
    assert record.getMessage() == f"token {MASK} of Secret('{MASK}')"


def test_a_traceback_is_clean_after_redaction() -> None:
    try:
        raise ValueError(f"cannot log in with {Secret(VALUE).reveal()}")
    except ValueError:
        text = traceback.format_exc()
    assert VALUE in text
    assert VALUE not in redact(text)


def test_making_a_secret_makes_redact_know_it() -> None:
    Secret(VALUE)
    assert redact(f"Bearer {VALUE}!") == f"Bearer {MASK}!"


def test_text_without_secrets_is_returned_as_it_is() -> None:
    Secret(VALUE)
    text = "nothing to hide"
    assert redact(text) is text


def test_without_any_secret_text_is_returned_as_it_is() -> None:
    assert redact("plain") == "plain"


def test_a_secret_in_a_url_is_masked_in_its_encoded_spellings() -> None:
    Secret('p@ss/wörd "x"')
    assert redact("postgresql://app:p%40ss%2Fw%C3%B6rd%20%22x%22@host/db") == f"postgresql://app:{MASK}@host/db"
    assert redact("password=p%40ss%2Fw%C3%B6rd+%22x%22&x=1") == f"password={MASK}&x=1"


def test_a_secret_inside_json_and_repr_is_masked() -> None:
    value = 'a"b\\c\nd-long'
    Secret(value)
    assert value not in json.loads(redact(json.dumps({"k": value})))["k"]
    assert redact(json.dumps({"k": value})) == json.dumps({"k": MASK})
    assert "long" not in redact(repr(value))


def test_the_lines_of_a_key_file_are_masked_one_by_one() -> None:
    Secret("-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0\nBAQEFAASCBKcwggSjAgEAAoI\n-----END KEY-----\n")
    assert redact("line: BAQEFAASCBKcwggSjAgEAAoI") == f"line: {MASK}"


def test_overlapping_secrets_leave_nothing_behind() -> None:
    Secret("abcdef")
    Secret("defghi")
    assert redact("<abcdefghi>") == f"<{MASK}>"


def test_a_secret_that_contains_another_is_masked_whole() -> None:
    Secret("inner-part")
    Secret("outer-inner-part-outer")
    assert redact("outer-inner-part-outer inner-part") == f"{MASK} {MASK}"


@pytest.mark.parametrize("value", ["", "a", "abc", "443", "5757", "65535", "true", "null", "localhost", "127.0.0.1"])
def test_what_cannot_be_told_from_ordinary_text_is_not_searched_for(value: str) -> None:
    Secret(value)
    text = "a 443 5757 65535 abc true null localhost 127.0.0.1"
    assert redact(text) == text


def test_values_of_code_never_push_out_values_of_the_configuration() -> None:
    register(VALUE, pinned=True)
    for number in range(secret.MAX_TRANSIENT + 10):
        register(f"transient-{number}")
    assert redact(VALUE) == MASK
    assert redact("transient-0") == "transient-0"
    assert redact(f"transient-{secret.MAX_TRANSIENT + 9}") == MASK


def test_the_registry_of_configured_values_is_bounded() -> None:
    for number in range(secret.MAX_PINNED + 1):
        register(f"pinned-value-{number:06}", pinned=True)
    assert redact("pinned-value-000000") == "pinned-value-000000"
    assert redact("pinned-value-000001") == MASK


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=4, max_size=12), min_size=1, max_size=4),
    st.text(max_size=8),
    st.text(max_size=8),
)
def test_no_registered_value_survives_redaction(values: list[str], before: str, after: str) -> None:
    secret.forget_all()
    values = [value for value in values if secret._is_searched(value) and value not in MASK * 3]
    assume(values)
    for value in values:
        Secret(value)
    text = before + after.join(values) + before
    redacted = redact(text)
    pieces = redacted.split(MASK)
    assert not [value for value in values for piece in pieces if value in piece]
