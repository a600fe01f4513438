"""What only a socket can send: lying lengths, endless heads, drops of a body, silence."""

import contextlib
import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor

HEAD = b"POST /api/v1/probe/photo HTTP/1.1\r\nHost: localhost\r\n"
JSON_HEAD = (
    b"POST /api/v1/probe/json HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
)
GET = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
GREETING = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def _talk(port, *pieces, pause=0.0):
    """Send pieces until the other side has enough; status and problem, bytes sent, seconds."""
    began, sent, heard = time.monotonic(), 0, b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                connection.sendall(piece)
                sent += len(piece)
                time.sleep(pause)
        with contextlib.suppress(ConnectionError):
            while data := connection.recv(65_536):
                heard += data
    return heard, sent, time.monotonic() - began


def _problem(heard):
    head, _, body = heard.rpartition(b"\r\n\r\n")
    status = int(re.match(rb"HTTP/1.1 (\d+) ", head)[1])
    told = json.loads(body)
    assert told["status"] == status
    assert b"application/problem+json" in head
    assert b"connection: close" in head.lower()
    assert b"server:" not in head.lower()
    return status, told["code"]


def test_a_told_length_that_is_too_large_is_refused_before_a_byte_of_it(port):
    heard, sent, seconds = _talk(
        port, HEAD + b"Content-Length: 10000000000\r\n\r\n", *[b"x" * 65_536] * 200
    )
    assert _problem(heard) == (413, "too_large")
    assert sent < 13_000_000
    assert seconds < 5


def test_an_untold_length_is_counted(port):
    piece = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
    heard, _, _ = _talk(port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[piece] * 400)
    assert _problem(heard) == (413, "too_large")
    heard, _, _ = _talk(port, JSON_HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[piece] * 400)
    assert _problem(heard) == (413, "too_large")


def test_a_length_that_promises_more_than_comes_ends_in_time(port):
    heard, _, seconds = _talk(port, HEAD + b"Content-Length: 1000\r\n\r\nabc")
    assert _problem(heard) == (408, "too_slow")
    assert 0.3 < seconds < 3
    heard, _, _ = _talk(port, JSON_HEAD + b'Content-Length: 1000\r\n\r\n{"a":')
    assert _problem(heard) == (408, "too_slow")


def test_a_body_that_drips_is_not_waited_for(port):
    drops = [b"x" * 100] * 14
    heard, _, seconds = _talk(port, HEAD + b"Content-Length: 100000\r\n\r\n", *drops, pause=0.05)
    assert _problem(heard) == (408, "too_slow")
    assert seconds < 3


def test_two_lengths_are_no_length(port):
    for lengths in (
        b"Content-Length: 3\r\nContent-Length: 5\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: 3x\r\n",
        b"Content-Length: 3\r\nTransfer-Encoding: gzip\r\n",
        b"Transfer-Encoding: chunked, chunked\r\n",
    ):
        heard, _, _ = _talk(port, HEAD + lengths + b"\r\nabc")
        assert _problem(heard)[0] == 400, lengths


def test_length_and_chunks_together_are_no_way_past_a_proxy(port):
    """Request smuggling: the two disagree where the body ends, so no second request is read."""
    inner = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    told = b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n" % len(inner)
    heard, _, _ = _talk(port, HEAD + told + inner)
    assert _problem(heard) == (400, "bad_request")
    assert heard.count(b"HTTP/1.1 ") == 1


def test_a_body_of_single_bytes_is_refused(port):
    began = time.monotonic()
    heard, _, _ = _talk(
        port, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *[b"1\r\nx\r\n" * 1000] * 100
    )
    assert _problem(heard) == (400, "bad_request")
    assert time.monotonic() - began < 2


def test_an_endless_head_is_refused(port):
    for piece in (b"x-more: " + b"y" * 1000 + b"\r\n", b"y" * 1000, b"a:\r\n" * 250):
        heard, _, _ = _talk(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nx: ", *[piece] * 2000)
        assert _problem(heard)[0] in {400, 431}
    heard, _, _ = _talk(port, b"GET /" + b"a" * 100_000)
    assert _problem(heard)[0] in {400, 431}


def test_a_head_that_drips_is_not_waited_for(port):
    heard, _, seconds = _talk(port, *[b"G", b"E", b"T", b" "] * 4, pause=0.05)
    assert _problem(heard) == (408, "too_slow")
    assert seconds < 3


def test_the_second_head_of_a_connection_has_its_time_too(port):
    heard, _, seconds = _talk(port, GET, *[b"G"] * 14, pause=0.05)
    assert heard.startswith(b"HTTP/1.1 200")
    assert heard.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 408" in heard
    assert seconds < 4


def test_silence_is_ended_without_a_word(port):
    heard, _, seconds = _talk(port)
    assert heard == b""
    assert 0.3 < seconds < 3


def test_a_connection_is_kept_for_the_next_request_and_not_forever(port):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for _ in range(5):
            connection.sendall(GET)
            heard = b""
            while not heard.endswith(b'{"status":"ok"}'):
                heard += connection.recv(65_536)
            assert heard.startswith(b"HTTP/1.1 200")
        began = time.monotonic()
        assert connection.recv(65_536) == b""
        assert time.monotonic() - began < 2


def test_requests_one_behind_the_other_are_answered_in_order(port):
    heard, _, _ = _talk(port, GET * 20 + GREETING)
    assert heard.count(b"HTTP/1.1 200") == 21


def test_what_is_no_http_is_told_so(port):
    for text in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"HELO x\r\n\r\n",
        b"\0" * 100 + b"\r\n\r\n",
    ):
        heard, _, _ = _talk(port, text)
        assert _problem(heard)[0] == 400
    heard, _, _ = _talk(port, b"GET /healthz HTTP/1.1\r\n\r\n")
    assert _problem(heard)[0] == 400


def test_who_is_silent_makes_room_for_who_is_not(port):
    """Three times as many silent connections as are let in, and the service answers through them all."""
    with contextlib.ExitStack() as stack:
        opened = []
        for _ in range(60):
            connection = socket.create_connection(("127.0.0.1", port), timeout=10)
            stack.enter_context(connection)
            connection.sendall(b"GET /he")
            opened.append(connection)
        for _ in range(5):
            heard, _, seconds = _talk(port, GREETING)
            assert heard.startswith(b"HTTP/1.1 200")
            assert seconds < 5
        first = b""
        with contextlib.suppress(ConnectionError):
            first = opened[0].recv(99)
        assert first == b""  # made room; what only came too slowly is told so
        assert opened[-1].recv(99).startswith(b"HTTP/1.1 408")


def test_it_answers_while_others_misbehave(port):
    def slow(number):
        return _talk(port, HEAD + b"Content-Length: 100000\r\n\r\n", *[b"x"] * 10, pause=0.05)

    with ThreadPoolExecutor(6) as pool:
        others = [pool.submit(slow, number) for number in range(6)]
        took = []
        while not all(each.done() for each in others):
            heard, _, seconds = _talk(port, GREETING)
            assert heard.startswith(b"HTTP/1.1 200")
            took.append(seconds)
        for each in others:
            assert _problem(each.result()[0]) == (408, "too_slow")
    assert sorted(took)[len(took) // 2] < 0.5


def test_a_good_body_is_taken_as_a_whole(port):
    body = b"x" * 200_000
    heard, _, _ = _talk(port, HEAD + b"Connection: close\r\nContent-Length: 200000\r\n\r\n", body)
    assert heard.startswith(b"HTTP/1.1 200")
    assert b'"size":200000' in heard


def test_who_waits_to_be_asked_for_a_body_is_refused_without_it(port):
    head = HEAD + b"Expect: 100-continue\r\nContent-Length: 999999999\r\n\r\n"
    heard, _, _ = _talk(port, head)
    assert b"100 Continue" not in heard
    assert _problem(heard) == (413, "too_large")


def test_only_so_many_bodies_come_at_a_time(port):
    """The rest are refused before they are read, and those that came make room."""
    head = HEAD + b"Content-Length: 100000\r\n\r\n"
    with contextlib.ExitStack() as stack:
        waiting = []
        for _ in range(8):
            connection = socket.create_connection(("127.0.0.1", port), timeout=10)
            waiting.append(stack.enter_context(connection))
            connection.sendall(head + b"x")
        heard, _, _ = _talk(port, head, b"x")
        assert _problem(heard) == (503, "busy")
        assert b"retry-after" in heard.lower()
        assert all(status.startswith(b"HTTP/1.1 408") for status in (c.recv(99) for c in waiting))
    heard, _, _ = _talk(port, HEAD + b"Connection: close\r\nContent-Length: 1\r\n\r\nx")
    assert heard.startswith(b"HTTP/1.1 200")


def test_a_refusal_is_no_reset_for_who_is_still_sending(port):
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(HEAD + b"Content-Length: 10000000\r\n\r\n" + b"x" * 300_000)
        heard = b""
        while data := connection.recv(65_536):
            heard += data
    assert _problem(heard) == (413, "too_large")
