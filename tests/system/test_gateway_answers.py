"""How an engine may frame its answers, and what the client then gets. FAULTS.md part B by number."""
import json
import random
import threading
import time

import pytest

from harness import (SLOW, answer, chat, chunked, event_stream, model, post, replica, wait_until)

pytestmark = pytest.mark.gateway

OK = b"HTTP/1.1 200 OK\r\n"
JSON = b"Content-Type: application/json\r\n"


@pytest.fixture
def play(gateway, upstream):
    """play(script) -> (gateway, upstream): one engine that does what the script says."""
    def make(script=None, workers=1, **more):
        u = upstream(script)
        m = more.pop("model", {})
        return gateway(workers=workers, models=model(versions={"v1": (1, [u])}, **m), **more), u
    return make


def says(data, close=False):
    """A script that answers with these bytes."""
    def script(request, conn):
        conn.send(data)
        if close:
            conn.close()
    return script


# --- good answers in every framing ---------------------------------------------------------

def test_answer_with_length(play):
    g, u = play(says(answer({"a": 1}, 200, "X-A: b")))
    with g.wire() as w:
        for _ in range(3):
            a = w.ask(post(chat()))
            assert (a.status, a.framing, a.json(), a.get("x-a")) == (200, "length", {"a": 1}, "b")
            assert a.get("x-segue-version") == "m@v1"
    assert len(u.conns) == 1


def test_answer_with_length_byte_by_byte(play):
    g, u = play(lambda r, c: c.drip(answer({"a": "b" * 30}), pause=0))
    with g.wire() as w:
        for _ in range(3):
            assert w.ask(post(chat())).json() == {"a": "b" * 30}
    assert len(u.conns) == 1


def test_answer_of_length_0(play):
    g, _ = play(says(answer(b"")))
    with g.wire() as w:
        for _ in range(3):
            a = w.ask(post(chat()))
            assert a.complete and a.framing == "length" and a.body == b""


def test_chunked_answer_is_framed_anew(play):
    data = b"".join(bytes([65 + i % 26]) * i for i in range(200))
    pieces = [data[i:i + 97] for i in range(0, len(data), 97)]
    g, u = play(says(OK + JSON + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(*pieces)))
    with g.wire() as w:
        for _ in range(3):
            a = w.ask(post(chat()))
            assert a.framing == "chunked" and a.complete and a.body == data
    assert len(u.conns) == 1


def test_chunked_answer_with_extensions_and_trailers(play):
    g, _ = play(says(OK + b"Trailer: X-T\r\nTransfer-Encoding: chunked\r\n\r\n"
                     b"5;a=b\r\nhello\r\n00001\r\n!\r\n0;last\r\nX-T: 1\r\n\r\n"))
    a = g.ask(post(chat()))
    assert a.body == b"hello!" and a.get("trailer") is None and a.get("x-t") is None


def test_chunked_answer_cut_by_the_network_anywhere(play):
    whole = OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(b"hello", b", ", b"world" * 9)

    def script(request, conn):
        at = int(request.text())
        conn.send(whole[:at])
        time.sleep(0.002)
        conn.send(whole[at:])
    g, u = play(script)
    with g.wire() as w:
        for at in range(1, len(whole)):
            a = w.ask(post(chat(str(at))))
            assert a.complete and a.body == b"hello, " + b"world" * 9, at
    assert len(u.conns) == 1


def test_answer_until_the_connection_ends(play):
    g, u = play(says(OK + JSON + b"\r\n" + b'{"a":1}', close=True))
    with g.wire() as w:
        for _ in range(3):
            a = w.ask(post(chat()))
            assert a.complete and a.framing == "chunked" and a.json() == {"a": 1}
    assert len(u.conns) == 3


def test_answer_of_http_1_0(play):
    g, u = play(says(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}"))
    with g.wire() as w:
        a = w.ask(post(chat()))
        assert a.complete and a.json() == {} and a.version == "HTTP/1.1"
        assert w.ask(post(chat())).complete
    assert len(u.conns) == 2, "HTTP/1.0 without keep-alive: not used again"


@pytest.mark.parametrize("status", [204, 304])
def test_answers_without_body(play, status):
    g, u = play(says(f"HTTP/1.1 {status} X\r\nX-A: b\r\n\r\n".encode()))
    with g.wire() as w:
        for _ in range(3):
            a = w.ask(post(chat()))
            assert a.status == status and a.get("x-a") == "b"
            assert a.get("transfer-encoding") is None
            assert status == 304 or a.get("content-length") is None
    assert len(u.conns) == 1


def test_connection_close_of_the_engine_is_its_own(play):
    g, u = play(says(answer({}, 200, "Connection: close")))
    with g.wire() as w:
        for _ in range(3):
            a = w.ask(post(chat()))
            assert a.complete and a.get("connection") is None
    assert len(u.conns) == 3


def test_large_answer_is_exact(play):
    data = random.Random(1).randbytes(3 << 20)
    g, _ = play(says(answer(data)))
    assert g.ask(post(chat())).body == data
    g, _ = play(says(OK + b"Transfer-Encoding: chunked\r\n\r\n" + chunked(
        *(data[i:i + 50_000] for i in range(0, len(data), 50_000)))))
    assert g.ask(post(chat())).body == data


def test_reason_and_unknown_status_are_kept(play):
    g, _ = play(says(b"HTTP/1.1 299 Odd But Fine\r\nContent-Length: 2\r\n\r\n{}"))
    a = g.ask(post(chat()))
    assert (a.status, a.reason) == (299, "Odd But Fine")


# --- streams -------------------------------------------------------------------------------

def sse_text(rng, events):
    parts = []
    for i in range(events):
        text = "".join(rng.choice("añ語🎵 \\\"x") for _ in range(rng.randint(0, 30)))
        parts.append("data: " + json.dumps({"i": i, "t": text}, ensure_ascii=False) + "\n\n")
    return "".join([*parts, "data: [DONE]\n\n"]).encode()


@pytest.mark.parametrize("framing", ["chunked", "close"])
def test_sse_relay_is_byte_exact_with_random_chunking(play, framing):
    """Split anywhere, in the middle of a character too."""
    rng = random.Random(7)
    bodies = [sse_text(rng, rng.randint(1, 60)) for _ in range(30)]

    def script(request, conn):
        body, at = bodies[int(request.text())], 0
        conn.send(event_stream(framing="Transfer-Encoding: chunked" if framing == "chunked"
                               else None))
        while at < len(body):
            n = rng.choice([1, 2, 3, 5, 17, 100, 1000])
            piece = body[at:at + n]
            conn.send(chunked(piece, last=False) if framing == "chunked" else piece)
            at += n
        if framing == "chunked":
            conn.send(b"0\r\n\r\n")
        else:
            conn.close()
    g, u = play(script)
    with g.wire() as w:
        for i, body in enumerate(bodies):
            a = w.ask(post(chat(str(i), stream=True)))
            assert a.complete and a.body == body
            assert a.get("content-type") == "text/event-stream"
    assert g.replica(u)["tokens"] == sum(b.count(b"\n\n") for b in bodies)


def test_sse_events_arrive_as_they_are_made(play):
    """Nothing is buffered: an event is there before the engine makes the next."""
    go = threading.Semaphore(0)

    def script(request, conn):
        conn.send(event_stream())
        for i in range(5):
            assert go.acquire(timeout=20)
            conn.send(chunked(b"data: %d\n\n" % i, last=False))
        conn.send(chunked(b"data: [DONE]\n\n"))
    g, _ = play(script)
    with g.wire() as w:
        a = w.send(post(chat(stream=True))).head()
        for i in range(5):
            go.release()
            wait_until(lambda: b"data: %d\n\n" % i in w.buffer or w.more() is None, 5)
        w.body(a)
        assert a.complete and len(a.chunks) >= 6


def test_sse_close_delimited_without_done_is_a_visible_cut(play):
    """The engine's end looks like an end of the answer, but [DONE] is missing."""
    def script(request, conn):
        conn.send(event_stream(framing=None) + b"data: {}\n\n")
        conn.close()
    g, u = play(script)
    a = g.ask(post(chat(stream=True)))
    assert not a.complete and json.loads(a.events()[-1])["error"]["code"] == "engine_gone"
    assert "[DONE]" not in a.events()
    g.settled()
    assert g.replica(u)["truncated"] == 1


# --- B: engine protocol --------------------------------------------------------------------

@pytest.mark.parametrize("status", [400, 401, 422, 429, 500, 503])
def test_B1_errors_of_the_engine_pass_unchanged(play, status):
    body = {"error": {"message": "no", "type": "x", "param": None, "code": None}}
    g, u = play(says(answer(body, status, "Retry-After: 7", "x-request-id: e-1", reason="Hm")))
    with g.wire() as w:
        a = w.ask(post(chat()))
        assert (a.status, a.json(), a.get("retry-after"), a.get("x-request-id")) == (
            status, body, "7", "e-1")
        assert w.ask(post(chat())).status == status
    g.settled()
    counters = g.replica(u)
    assert counters["failed" if status >= 500 else "finished"] == 2
    assert len(u.conns) == 1


BROKEN_HEADS = {
    "B2 garbage": bytes((i * 197 + 13) % 256 for i in range(4096)),
    "B2 SSH banner": b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n",
    "B2 HTML": b"<html><body>hello</body></html>\r\n\r\n",
    "B2 HTTP 0.9": b"<html>hello</html>",
    "B2 HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    "B2 no status": b"HTTP/1.1 OK\r\nContent-Length: 2\r\n\r\n{}",
    "B2 status of two digits": b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\n{}",
    "B2 status 600": b"HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\n{}",
    "B2 bare LF": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "B2 folded line": OK + b"X: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
    "B2 control byte": OK + b"X: a\0b\r\nContent-Length: 2\r\n\r\n{}",
    "B2 space before the colon": OK + b"Content-Length : 2\r\n\r\n{}",
    "B3 10000 fields": OK + b"X: y\r\n" * 10000 + b"\r\n",
    "B3 head of 200 KB": OK + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
    "B4 end in the head": OK + b"Content-Le",
    "B4 end in the status line": b"HTTP/1.1 2",
    "B5 length and chunks": OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"
                                 b"2\r\n{}\r\n0\r\n\r\n",
    "B5 two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "B5 signed length": OK + b"Content-Length: -2\r\n\r\n{}",
    "B5 unknown coding": OK + b"Transfer-Encoding: gzip\r\n\r\n{}",
    "B8 101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "B8 endless 1xx": b"HTTP/1.1 100 Continue\r\n\r\n" * 20000,
}


@pytest.mark.parametrize("name", BROKEN_HEADS)
def test_B2_B3_B4_B5_B8_broken_heads_are_502_and_never_relayed(play, name):
    g, u = play(says(BROKEN_HEADS[name], close=True))
    with g.wire() as w:
        a = w.ask(post(chat()))
        assert a.status == 502 and a.complete, a
        assert a.error["type"] == "server_error"
        assert a.error["code"] in ("bad_gateway", "engine_gone")
        u.script = None
        # The client's connection is fine, the engine's is not used again.
        wait_until(lambda: w.ask(post(chat())).status == 200, 5)
    g.settled()
    counters = g.replica(u)
    assert counters["failed"] >= 1 and counters["truncated"] == 0
    assert len(u.conns) >= 2


def test_B3_endless_head_is_502_in_bounded_time_and_memory(play):
    def script(request, conn):
        conn.send(OK)
        while True:
            conn.send(b"X-More: and more\r\n" * 1000)
    g, _ = play(script)
    before = g.rss()
    a = g.ask(post(chat()))
    assert a.status == 502 and a.seconds < 5 * SLOW
    assert g.rss() - before < 20 << 20


# name: what the engine sends before it ends the connection
CUT_BODIES = {
    "in a body with a length": OK + b"Content-Length: 100\r\n\r\nhalf of it",
    "in a chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n64\r\nhalf of it",
    "in a chunk's end": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r",
    "in a size line": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6",
    "before the last chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "in the last chunk": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    "in the trailer": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n",
    "B5 bad chunk size": OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
    "B5 chunk longer than its size": OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n",
}


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("name", CUT_BODIES)
def test_B4_B5_a_cut_answer_is_visibly_cut(play, name, how):
    def script(request, conn):
        conn.send(CUT_BODIES[name])
        time.sleep(0.03)  # so that the bytes are read before the reset
        conn.reset() if how == "RST" else conn.close()
    g, u = play(script)
    with g.wire() as w:
        a = w.ask(post(chat()))
        assert not a.complete, a
        assert b"zz" not in a.body and a.status == 200
        assert w.ended() or a.reset
    g.settled()
    assert g.replica(u)["truncated"] == 1 and g.replica(u)["in_flight"] == 0


@pytest.mark.parametrize("how", ["FIN", "RST", "bad chunk"])
def test_B4_a_cut_stream_ends_with_an_error_frame_and_no_done(play, how):
    def script(request, conn):
        conn.send(event_stream() + chunked(b'data: {"t":"one"}\n\n', b'data: {"t":', last=False))
        time.sleep(0.03)
        if how == "bad chunk":
            conn.send(b"zz\r\n")
        else:
            conn.reset() if how == "RST" else conn.close()
    g, u = play(script)
    a = g.ask(post(chat(stream=True)))
    assert not a.complete and 0 not in a.chunks
    assert a.body.startswith(b'data: {"t":"one"}\n\ndata: {"t":\n\ndata: {"error"'), a.body
    error = json.loads(a.events()[-1])["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert "[DONE]" not in a.body.decode()
    g.settled()
    assert g.replica(u)["truncated"] == 1


def test_B4_a_cut_stream_of_an_http_1_0_client_is_reset(play):
    def script(request, conn):
        conn.send(event_stream() + chunked(b'data: {"t":"one"}\n\n', last=False))
        time.sleep(0.03)
        conn.close()
    g, _ = play(script)
    a = g.ask(post(chat(stream=True), version="HTTP/1.0"))
    assert a.reset and not a.complete and b'"t":"one"' in a.body


def test_B6_bytes_behind_the_answer_never_become_another_answer(play):
    g, u = play(says(answer({"mine": 1}) + answer({"not": "yours"})))
    with g.wire() as w:
        for _ in range(5):
            assert w.ask(post(chat())).json() == {"mine": 1}
    assert len(u.conns) == 5


def test_B6_an_answer_on_an_idle_connection_closes_it(play):
    g, u = play()
    assert g.ask(post(chat("a"))).status == 200
    u.conns[0].send(answer({"nobody": "asked"}))
    wait_until(lambda: u.conns[0].ended.is_set(), what="the idle connection is closed")
    assert g.ask(post(chat("b"))).json()["choices"][0]["message"]["content"] == "b"


def test_B6_late_bytes_after_the_answer_are_not_the_next_answer(play):
    def script(request, conn):
        conn.send(answer({"n": request.text()}))
        time.sleep(0.01)
        conn.send(b"late")
    g, _ = play(script)
    with g.wire() as w:
        for i in range(20):
            a = w.ask(post(chat(str(i))))
            assert a.status == 502 or a.json() == {"n": str(i)}, a
            time.sleep(0.005 * (i % 3))


def test_B7_an_early_answer_reaches_the_client(gateway, upstream):
    """429 before the body is read, and the engine closes at once."""
    def on_head(request, conn):
        conn.send(answer({"error": {"message": "busy"}}, 429, "Retry-After: 3",
                         "Connection: close"))
        conn.wait_end(10)
        raise EOFError
    u = upstream(on_head=on_head)
    g = gateway(models=model(versions={"v1": (1, [u])}), limits={"body_bytes": 16 << 20})
    for size in (10, 100_000, 8_000_000):
        a = g.ask(post(chat("x" * size)))
        assert a.status == 429 and a.get("retry-after") == "3", a


def test_B7_an_early_answer_and_a_reset(gateway, upstream):
    """The engine answers and closes with the upload unread: its kernel sends a reset."""
    def on_head(request, conn):
        conn.send(answer({"error": {"message": "busy"}}, 429, "Connection: close"))
        time.sleep(0.05)
        conn.close()
        raise EOFError
    u = upstream(on_head=on_head)
    g = gateway(models=model(versions={"v1": (1, [u])}), limits={"body_bytes": 16 << 20})
    for size in (10, 8_000_000):
        assert g.ask(post(chat("x" * size))).status == 429


def test_B8_unasked_1xx_are_dropped(play):
    g, u = play(says(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
                     + answer({"a": 1})))
    with g.wire() as w:
        for _ in range(3):
            a = w.ask(post(chat()))
            assert a.json() == {"a": 1} and a.get("link") is None
    assert len(u.conns) == 1


def test_B9_json_although_a_stream_was_asked_for(play):
    g, _ = play(says(answer({"a": 1})))
    a = g.ask(post(chat(stream=True)))
    assert a.json() == {"a": 1} and a.get("content-type") == "application/json"


def test_B9_a_stream_although_none_was_asked_for(play):
    g, _ = play(says(event_stream() + chunked(b"data: 1\n\n", b"data: [DONE]\n\n")))
    a = g.ask(post(chat()))
    assert a.events() == ["1", "[DONE]"] and a.complete


def test_B10_a_head_that_drips_meets_the_deadline(play):
    g, _ = play(lambda r, c: c.drip(answer({}), pause=0.1), timeouts={"first_byte": 500})
    a = g.ask(post(chat()))
    assert a.status == 504 and a.error["code"] == "engine_timeout"
    assert "first_byte" in a.error["message"]


def test_prefix_and_served_name(gateway, upstream):
    u = upstream()
    g = gateway(models=model(versions={"v1": (1, [replica(u, prefix="/deep/er", serve_as='n"x')])}))
    assert g.ask(post(chat("p"))).status == 200
    assert u.requests[0].target == "/deep/er/v1/chat/completions"
    assert u.requests[0].json()["model"] == 'n"x'


def test_engine_on_a_unix_socket(gateway, upstream):
    u = upstream(unix=True)
    g = gateway(models=model(versions={"v1": (1, [u])}))
    with g.wire() as w:
        for i in range(5):
            assert w.ask(post(chat(f"u{i}"))).json()["choices"][0]["message"]["content"] == f"u{i}"
