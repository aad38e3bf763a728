from __future__ import annotations

import time
from collections.abc import Iterator

import gevent
import pytest
import requests

from tests.support.http_peer import HttpPeer, RawPeer, Reply, garbage, hang_up, reset, silence


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as opened:
        opened.trust_env = False
        yield opened


def test_it_answers_as_scripted_and_records_the_request(http_peer: HttpPeer, session: requests.Session) -> None:
    http_peer.reply("POST /users/a%2Fb", status=201, json={"id": 7}, headers={"X-Left": "3"})
    answer = session.post(f"{http_peer.url}/users/a%2Fb?full=yes", json={"name": "Ada"}, timeout=5)
    assert (answer.status_code, answer.json(), answer.headers["x-left"]) == (201, {"id": 7}, "3")
    [request] = http_peer.requests
    assert (request.method, request.path, request.query) == ("POST", "/users/a%2Fb", {"full": "yes"})
    assert request.json() == {"name": "Ada"}
    assert request.headers["content-type"] == "application/json"


def test_what_is_not_scripted_is_not_found(http_peer: HttpPeer, session: requests.Session) -> None:
    assert session.get(f"{http_peer.url}/nowhere", timeout=5).status_code == 404


def test_a_limited_script_gives_way_to_what_was_there_before(http_peer: HttpPeer, session: requests.Session) -> None:
    http_peer.reply("GET /", status=200)
    http_peer.reply("GET /", status=503, times=2)
    assert [session.get(http_peer.url, timeout=5).status_code for _ in range(4)] == [503, 503, 200, 200]


def test_several_replies_come_in_their_order(http_peer: HttpPeer, session: requests.Session) -> None:
    http_peer.replies("GET /", [Reply(status=500), Reply(status=502), lambda request: Reply(json=request.query)])
    answers = [session.get(http_peer.url + "/?page=2", timeout=5) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [500, 502, 200]
    assert answers[-1].json() == {"page": "2"}


def test_keep_alive_uses_one_connection_without_delay(http_peer: HttpPeer, session: requests.Session) -> None:
    http_peer.reply("GET /", json={"ok": True})
    took_s = []
    for _ in range(20):
        started = time.monotonic()
        session.get(http_peer.url, timeout=5)
        took_s.append(time.monotonic() - started)
    # With Nagle's algorithm on, each request but the first waits 40 ms for the delayed acknowledgement.
    assert min(took_s[1:]) < 0.03
    assert http_peer.connections == 1


def test_a_held_reply_comes_when_released(http_peer: HttpPeer, session: requests.Session) -> None:
    http_peer.reply("GET /", hold=True, json=1)
    asking = gevent.spawn(session.get, http_peer.url, timeout=5)
    http_peer.wait_for_requests(1)
    assert not asking.dead
    http_peer.release()
    assert asking.get(timeout=5).json() == 1


def test_a_dripping_body_arrives_in_pieces(http_peer: HttpPeer, session: requests.Session) -> None:
    http_peer.reply("GET /", body=b"abcdef", drip_bytes=2, drip_pause_s=0.02)
    with session.get(http_peer.url, timeout=5, stream=True) as answer:
        assert b"".join(answer.iter_content(2)) == b"abcdef"
        assert answer.elapsed.total_seconds() < 0.04


def test_a_chunked_body_is_whole(http_peer: HttpPeer, session: requests.Session) -> None:
    http_peer.reply("GET /", body=b"abcdef", drip_bytes=4, chunked=True)
    answer = session.get(http_peer.url, timeout=5)
    assert (answer.content, answer.headers["transfer-encoding"]) == (b"abcdef", "chunked")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_cut_short_is_seen_by_the_caller(http_peer: HttpPeer, session: requests.Session, chunked: bool) -> None:
    http_peer.reply("GET /", body=b"x" * 100, close_after_bytes=10, chunked=chunked)
    with pytest.raises(requests.exceptions.ChunkedEncodingError):
        session.get(http_peer.url, timeout=5)


def test_a_reset_is_seen_by_the_caller(http_peer: HttpPeer, session: requests.Session) -> None:
    http_peer.reply("GET /", reset=True)
    with pytest.raises(requests.ConnectionError, match="reset by peer"):
        session.get(http_peer.url, timeout=5)


def test_raw_bytes_are_no_http(http_peer: HttpPeer, session: requests.Session) -> None:
    http_peer.reply("GET /", raw=b"\x00\xff nothing of the kind\r\n\r\n")
    with pytest.raises(requests.ConnectionError, match="BadStatusLine"):
        session.get(http_peer.url, timeout=5)


def test_a_stopped_peer_refuses_and_a_started_one_answers_on_the_same_port(
    http_peer: HttpPeer, session: requests.Session
) -> None:
    http_peer.reply("GET /", json=1)
    session.get(http_peer.url, timeout=5)
    http_peer.stop()
    with pytest.raises(requests.ConnectionError, match="refused"):
        session.get(http_peer.url, timeout=5)
    http_peer.start()
    assert session.get(http_peer.url, timeout=5).json() == 1


def test_a_stop_cuts_the_requests_in_flight(http_peer: HttpPeer, session: requests.Session) -> None:
    http_peer.reply("GET /", hold=True)
    asking = gevent.spawn(pytest.raises, requests.ConnectionError, session.get, http_peer.url, timeout=5)
    http_peer.wait_for_requests(1)
    http_peer.stop()
    asking.get(timeout=2)


def test_a_raw_peer_answers_garbage(raw_peer: RawPeer, session: requests.Session) -> None:
    raw_peer.behave(garbage(b"SSH-2.0-not http\r\n"))
    with pytest.raises(requests.ConnectionError):
        session.get(raw_peer.url, timeout=5)


def test_a_raw_peer_hangs_up_or_resets(raw_peer: RawPeer, session: requests.Session) -> None:
    for behaviour in (hang_up, reset):
        raw_peer.behave(behaviour)
        with pytest.raises(requests.ConnectionError):
            session.get(raw_peer.url, timeout=5)


def test_a_raw_peer_is_silent_after_accept(raw_peer: RawPeer, session: requests.Session) -> None:
    raw_peer.behave(silence)
    with pytest.raises(requests.ReadTimeout):
        session.get(raw_peer.url, timeout=0.1)
    assert raw_peer.connections == 1
