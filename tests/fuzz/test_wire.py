"""Anything on the wire: hypothesis makes sequences of messages, atheris (when it is there) follows the coverage."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.wire import Wire, join

PROJECT = Path(__file__).parents[2]
GOLDEN = [
    [bytes.fromhex(frame) for frame in json.loads(file.read_text())["frames"]]
    for file in sorted((PROJECT / "tests" / "regrow" / "golden").glob("*.json"))
]


def ask(
    id: bytes, method: bytes, body: bytes = b"", more: bytes = b"", envelope: tuple[bytes, ...] = ()
) -> list[bytes]:
    return [*envelope, b"RG1", b"ASK", id, b'{"to":"probe","method":"%s"%s}' % (method, more), body]


def sub(id: bytes, topics: bytes, more: bytes = b"") -> list[bytes]:
    return [b"RG1", b"SUB", id, b'{"topics":%s%s}' % (topics, more), b""]


SEEDS = [
    [ask(b"1", b"echo", b'{"value":[1,{"a":null}]}'), ask(b"1", b"add", b'{"a":1}')],
    [ask(b"1", b"add", b'{"a":1,"b":2.5,"c":["x"]}', b',"idem":"k"'), ask(b"2", b"add", b"{}", b',"idem":"k"')],
    [ask(b"s", b"count", b'{"to":9}', b',"stream":true,"credit":2'), [b"RG1", b"CREDIT", b"s", b'{"n":3}', b""]],
    [ask(b"s", b"count", b'{"to":9}', b',"stream":true,"credit":0'), [b"RG1", b"CANCEL", b"s", b"{}", b""]],
    [ask(b"1", b"refuse", b'{"message":"no"}', envelope=(b"",)), ask(b"1", b"echo", b"\x80", b',"codec":"msgpack"')],
    [sub(b"e", b'["*"]', b',"since":0'), sub(b"e", b'["a.b"]'), [b"RG1", b"UNSUB", b"e", b"{}", b""]],
    [sub(b"e", b'["actor.*","a.b"]'), [b"RG1", b"UNSUB", b"e", b'{"topics":["a.b"]}', b""], sub(b"f", b"[]")],
    [ask(b"1", b"echo", b"{}", b',"deadline_ms":0.001'), [b"RG1", b"TELL", b"2", b'{"to":"probe","method":"echo"}']],
]


@pytest.fixture
def wire() -> Iterator[Wire]:
    made = Wire()
    yield made
    made.close()


@pytest.mark.parametrize("messages", [*SEEDS, *([golden] for golden in GOLDEN)])
def test_the_seeds_of_the_fuzzer_come_out(wire: Wire, messages: list[list[bytes]]) -> None:
    assert wire.run(join(messages)).total() == len(messages)


def test_the_reckoning_notices_a_lost_answer(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(wire.service._ops, "PING", lambda _peer, _message: None)
    with pytest.raises(AssertionError, match="answers"):
        wire.handle([[b"RG1", b"PING", b"1", b"{}", b""]])


def test_the_reckoning_notices_a_doubled_answer(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(peer: object, message: object, once: object = wire.service._ops["PING"]) -> None:
        assert callable(once)
        once(peer, message)
        once(peer, message)

    monkeypatch.setitem(wire.service._ops, "PING", twice)
    with pytest.raises(AssertionError, match="answers"):
        wire.handle([[b"RG1", b"PING", b"1", b"{}", b""]])


PARTS = st.sampled_from([frame for golden in GOLDEN for frame in golden]) | st.binary(max_size=20)
MESSAGES = st.sampled_from([*GOLDEN, *(message for seed in SEEDS for message in seed)]) | st.lists(PARTS, max_size=7)


def test_any_sequence_of_messages_comes_out(wire: Wire) -> None:
    @settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(MESSAGES, max_size=12))
    def attack(messages: list[list[bytes]]) -> None:
        wire.handle(messages)

    attack()


def fuzz(folder: Path, seconds: int) -> str:
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, messages in enumerate([*SEEDS, *([golden] for golden in GOLDEN)]):
        (corpus / f"seed-{number}").write_bytes(join(messages))
    limits = [f"-max_total_time={seconds}", "-timeout=2", "-max_len=8192", "-rss_limit_mb=1024", "-print_final_stats=1"]
    command = [sys.executable, "-m", "tests.fuzz.run", str(corpus), *limits, f"-artifact_prefix={folder}/"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=seconds + 60, check=False
    )
    assert done.returncode == 0, done.stderr[-6000:]
    return done.stderr


def require_progress(report: str, inputs: int) -> None:
    executed = re.search(r"stat::number_of_executed_units: (\d+)", report)
    assert executed and int(executed[1]) > inputs, report[-2000:]
    coverage = [int(found) for found in re.findall(r"cov: (\d+)", report)]
    assert coverage[-1] > coverage[0], "no input found code that the first one had not reached"


@pytest.fixture
def atheris_works() -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: pip install regrow[fuzz] where there is a wheel of it")


@pytest.mark.slow
def test_the_fuzzer_finds_nothing_in_some_seconds(atheris_works: None, tmp_path: Path) -> None:
    require_progress(fuzz(tmp_path, 4), 500)


@pytest.mark.soak
@pytest.mark.timeout(400)
def test_the_fuzzer_finds_nothing_in_some_minutes(atheris_works: None, tmp_path: Path) -> None:
    require_progress(fuzz(tmp_path, 240), 20_000)
