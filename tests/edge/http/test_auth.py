"""Tokens: who may read and who may change, and the token that the daemon writes itself."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.secret import Secret, forget_all, redact
from regrow.protocol.errors import Forbidden, Unauthorized
from runtime.edge.auth import ADMIN_TOKEN_FILE, Auth, read_admin_token, write_admin_token

HERE, ELSEWHERE = "127.0.0.1", "10.1.2.3"


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    forget_all()


def auth(read: str = "", admin: str = "") -> Auth:
    return Auth(Secret(read) if read else None, Secret(admin) if admin else None)


def may(auth: Auth, authorization: str, address: str) -> tuple[bool, bool]:
    caller = auth.caller(authorization, address)
    return caller.reads, caller.changes


def test_without_tokens_only_this_machine_reads_and_nobody_changes() -> None:
    assert may(auth(), "", HERE) == (True, False)
    assert may(auth(), "", ELSEWHERE) == (False, False)


def test_with_a_read_token_also_this_machine_needs_it() -> None:
    assert may(auth(read="r"), "", HERE) == (False, False)
    assert may(auth(read="r"), "Bearer r", ELSEWHERE) == (True, False)


def test_the_admin_token_reads_and_changes_from_anywhere() -> None:
    assert may(auth(admin="a"), "Bearer a", ELSEWHERE) == (True, True)
    assert may(auth(read="r", admin="a"), "bearer  a ", HERE) == (True, True)


@pytest.mark.parametrize(
    "authorization", ["Bearer ", "Bearer x", "Bearer", "Basic r", "r", "Bearer \udcff", "Bearer rr"]
)
def test_any_other_token_is_unauthorized(authorization: str) -> None:
    for each in (auth(), auth(read="r"), auth(admin="a"), auth(read="r", admin="a")):
        with pytest.raises(Unauthorized):
            each.caller(authorization, HERE)


def test_what_a_caller_lacks_decides_the_error() -> None:
    both = auth(read="r", admin="a")
    with pytest.raises(Unauthorized, match=r"http\.read_token"):
        both.check(both.caller("", HERE), "read")
    with pytest.raises(Unauthorized, match=ADMIN_TOKEN_FILE):
        both.check(both.caller("", HERE), "admin")
    with pytest.raises(Forbidden, match="use the admin token"):
        both.check(both.caller("Bearer r", HERE), "admin")
    with pytest.raises(Forbidden, match="only this machine"):
        auth().check(auth().caller("", ELSEWHERE), "read")
    both.check(both.caller("Bearer a", HERE), "admin")
    both.check(both.caller("", ELSEWHERE), "open")


def test_the_daemons_own_token_is_readable_by_its_user_only_and_new_each_time(tmp_path: Path) -> None:
    first = write_admin_token(tmp_path)
    second = write_admin_token(tmp_path)
    file = tmp_path / ADMIN_TOKEN_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert read_admin_token(tmp_path) == second != first
    assert [each.name for each in tmp_path.iterdir()] == [ADMIN_TOKEN_FILE]
    assert len(second.reveal()) >= 32


def test_the_daemons_own_token_replaces_a_file_that_others_could_read(tmp_path: Path) -> None:
    file = tmp_path / ADMIN_TOKEN_FILE
    file.write_text("old")
    file.chmod(0o644)
    write_admin_token(tmp_path)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_daemons_own_token_is_redacted_from_texts(tmp_path: Path) -> None:
    token = write_admin_token(tmp_path).reveal()
    assert token not in redact(f"Authorization: Bearer {token}")


def test_without_a_file_there_is_no_token(tmp_path: Path) -> None:
    assert read_admin_token(tmp_path) is None
