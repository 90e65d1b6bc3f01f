"""Slow, silent and leaving clients; deadlines; back-pressure; too few descriptors."""
import os
import resource
import signal
import socket
import threading
import time

import pytest

from harness import (SLOW, Wire, answer, chat, chunked, event_stream, head, model, post, wait_until)

pytestmark = pytest.mark.gateway

MB = 1 << 20


def one(u, **more):
    return model(versions={"v1": (1, [u])}, **more)


# --- back-pressure -----------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["length", "chunked", "stream"])
def test_B11_a_client_that_does_not_read_bounds_the_engine_not_our_memory(gateway, upstream, kind):
    """The engine pumps 100 MB; the rest comes, exact, when the client reads at last."""
    total, block = 100 * MB, b"0123456789abcdef" * 4096
    sent = [0]

    def script(request, conn):
        if kind == "length":
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        else:
            conn.send(event_stream() if kind == "stream"
                      else b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while sent[0] < total:
            conn.send(block if kind == "length" else chunked(block, last=False))
            sent[0] += len(block)
        if kind != "length":
            conn.send(b"0\r\n\r\n")
    u = upstream(script)
    g = gateway(workers=1, models=one(u))
    before = g.rss()
    with g.wire() as w:
        a = w.send(post(chat())).head()

        def stuck():
            was = sent[0]
            time.sleep(0.3)
            return sent[0] == was > 0
        wait_until(stuck, 20, "the engine is not read any more")
        assert sent[0] < 16 * MB, "most of it is still at the engine"
        assert g.rss() - before < 8 * MB * (2 if SLOW > 1 else 1)
        assert g.ask(head("GET", "/health")).status == 200
        w.body(a)
        assert a.complete and len(a.body) == total
        assert a.body[:65536] == block and a.body[-65536:] == block
    assert g.rss() - before < 16 * MB


def test_B11_many_clients_that_do_not_read(gateway, upstream):
    block = b"x" * 65536

    def script(request, conn):
        conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(400):
            conn.send(chunked(block, last=False))
        conn.send(b"0\r\n\r\n")
    u = upstream(script)
    g = gateway(models=one(u))
    before = g.rss()
    wires = []
    for _ in range(30):
        w = g.wire()
        w.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        wires.append(w.send(post(chat())))
    time.sleep(1)
    grown = g.rss() - before
    assert grown < 30 * (0.4 * MB) * (2 if SLOW > 1 else 1), f"{grown / MB:.1f} MB"
    for w in wires:
        w.close()
    g.settled()
    assert g.replica(u)["cancelled"] == 30


# --- the client leaves -------------------------------------------------------------------------

@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("when", ["before the answer", "in the stream", "in a plain answer"])
def test_C_a_client_that_leaves_cancels_its_engine_within_a_second(gateway, upstream, how, when):
    def script(request, conn):
        if when == "in the stream":
            conn.send(event_stream() + chunked(b"data: 1\n\n", last=False))
        elif when == "in a plain answer":
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nxx")
        conn.wait_end()
    u = upstream(script)
    g = gateway(models=one(u))
    for _ in range(5):
        w = g.wire().send(post(chat(stream=True)))
        if when == "before the answer":
            wait_until(lambda: g.replica(u)["in_flight"] == 1 and u.requests)
        else:
            w.head()
        left = time.monotonic_ns()
        w.reset() if how == "reset" else w.close()
        assert u.conns[-1].ended.wait(5)
        assert (u.conns[-1].ended_ns - left) / 1e9 < 1
        g.settled()
    assert g.replica(u)["cancelled"] == 5 and g.replica(u)["in_flight"] == 0


def test_C_a_client_that_leaves_with_its_request_cancels_too(gateway, upstream):
    """The end comes in the same segment as the request, so to say."""
    u = upstream(lambda r, c: c.wait_end())
    g = gateway(models=one(u))
    for _ in range(20):
        with g.wire() as w:
            w.send(post(chat()))
    wait_until(lambda: g.counters.all()["opened"] == 20, 10)
    wait_until(lambda: g.counters.all()["connections"] == 0, 3, "all connections have ended")
    g.settled(3)
    wait_until(lambda: not u.open, 3, "the engine is left alone")


def test_C_a_half_closed_client_is_one_that_has_left(gateway, upstream):
    """Its answer may never be wanted, and the engine's time is dear; our own pages are free."""
    u = upstream(lambda r, c: c.wait_end())
    g = gateway(models=one(u))
    with g.wire() as w:
        w.send(post(chat()))
        wait_until(lambda: u.requests)
        w.finish()
        assert w.ended(3)
    g.settled(3)
    with g.wire() as w:
        w.send(head("GET", "/health")).finish()
        assert w.answer().status == 200 and w.ended(3)


def test_C_a_client_that_leaves_while_a_large_request_goes_out(gateway, upstream):
    """The engine does not read; the request is in our buffer when the client leaves."""
    gone = threading.Event()

    def on_head(request, conn):
        gone.wait(20)
        raise EOFError
    u = upstream(on_head=on_head)
    g = gateway(limits={"body_bytes": 64 * MB}, models=one(u))
    w = g.wire().send(post(chat("x" * 30 * MB)))
    wait_until(lambda: g.replica(u)["in_flight"] == 1, 20)
    w.close()
    g.settled(3)
    gone.set()


# --- deadlines -----------------------------------------------------------------------------------

def test_C_slow_head_is_408(gateway, upstream):
    u = upstream()
    g = gateway(models=one(u), timeouts={"head": 300})
    with g.wire() as w:
        a = w.send(b"POST /v1/chat").answer()
        assert a.status == 408 and "timeouts.head" in a.error["message"] and w.ended()
    # Dripping does not help.
    with g.wire() as w:
        began = time.monotonic()
        try:
            w.drip(post(chat()), pause=0.05)
        except ConnectionError:
            pass
        assert w.answer().status == 408
        assert time.monotonic() - began < 12
    assert u.requests == []


def test_C_slow_body_is_408(gateway, upstream):
    u = upstream()
    g = gateway(models=one(u), timeouts={"body": 300})
    for data in (post(chat())[:-3],
                 head("POST", "/v1/chat/completions", "Transfer-Encoding: chunked") + b"5\r\nab",
                 head("POST", "/v1/chat/completions", "Transfer-Encoding: chunked")
                 + b"2\r\n{}\r\n0\r\nX: "):
        with g.wire() as w:
            a = w.send(data).answer()
            assert a.status == 408 and "timeouts.body" in a.error["message"] and w.ended()
    assert u.requests == []


def test_C_an_idle_connection_is_closed_without_a_word(gateway, upstream):
    g = gateway(models=one(upstream()), timeouts={"idle": 300})
    with g.wire() as w:
        assert w.ended(5)
    with g.wire() as w:
        assert w.ask(post(chat())).status == 200
        assert w.ended(5)


def test_C_a_client_that_takes_nothing_is_cut(gateway, upstream):
    def script(request, conn):
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n")
        for _ in range(800):
            conn.send(b"x" * 65536)
    u = upstream(script)
    g = gateway(workers=1, models=one(u), timeouts={"send": 500})
    w = g.wire().send(post(chat()))
    wait_until(lambda: g.counters.all()["closed"] == 1, 10, "it was cut")
    g.settled()
    w.close()


def test_C_a_slow_reader_is_not_cut_while_it_reads(gateway, upstream):
    u = upstream(lambda r, c: c.send(answer(b"x" * 3 * MB)))
    g = gateway(models=one(u), timeouts={"send": 400, "between_bytes": 400, "first_byte": 400})
    w = g.wire()
    w.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
    a = w.send(post(chat())).head()
    for _ in range(20):
        time.sleep(0.1)
        w.buffer += w.s.recv(20000)
    w.body(a)
    assert a.complete and len(a.body) == 3 * MB
    w.close()


def test_A3_an_engine_that_is_silent_before_its_answer_is_504(gateway, upstream):
    u = upstream(lambda r, c: c.wait_end())
    g = gateway(models=one(u), timeouts={"first_byte": 300})
    a = g.ask(post(chat()))
    assert a.status == 504 and a.error["code"] == "engine_timeout" and a.seconds < 2 * SLOW
    wait_until(lambda: not u.open, 3, "its connection is closed, not pooled")
    g.settled()
    assert g.replica(u)["failed"] == 1


def test_A4_an_engine_that_falls_silent_in_a_stream_is_cut(gateway, upstream):
    def script(request, conn):
        conn.send(event_stream() + chunked(b"data: 1\n\n", last=False))
        time.sleep(1.2)
        try:
            conn.send(chunked(b"data: late\n\n", b"data: [DONE]\n\n"))
        except OSError:
            pass
        conn.wait_end()
    u = upstream(script)
    g = gateway(workers=1, models=one(u), timeouts={"between_bytes": 400})
    with g.wire() as w:
        a = w.ask(post(chat(stream=True)))
        assert not a.complete and a.events()[0] == "1" and "error" in a.events()[-1]
    u.script = None
    time.sleep(1)
    a = g.ask(post(chat("next")))
    assert a.status == 200 and "late" not in a.body.decode()
    assert g.replica(u)["truncated"] == 1


def test_F5_an_engine_that_accepts_and_answers_nothing_does_not_stall_the_others(gateway, upstream):
    hole, good = upstream(lambda r, c: c.wait_end()), upstream(name="good")
    g = gateway(workers=1, timeouts={"first_byte": 400},
                models=[one(hole), model("good", {"v1": (1, [good])})])
    wires = [g.wire().send(post(chat())) for _ in range(20)]
    with g.wire() as w:
        for _ in range(20):
            assert w.ask(post(chat(model="good"))).seconds < 0.3 * SLOW
    assert {w.answer().status for w in wires} == {504}


def test_a_connect_that_nobody_answers_meets_its_deadline(gateway):
    """An accept queue that is full: connect(2) waits."""
    full = socket.socket()
    full.bind(("127.0.0.1", 0))
    full.listen(0)
    fillers = []
    for _ in range(4):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(full.getsockname())
        fillers.append(s)
    address = "127.0.0.1:%d" % full.getsockname()[1]
    g = gateway(models=model(versions={"v1": (1, [address])}, hold_ms=600),
                timeouts={"connect": 200})
    a = g.ask(post(chat()))
    assert a.status == 503 and a.seconds < 5 * SLOW
    g.settled()
    for s in [full, *fillers]:
        s.close()


def test_an_idle_engine_connection_is_closed_after_its_time(gateway, upstream):
    u = upstream()
    g = gateway(models=one(u), timeouts={"upstream_idle": 200})
    assert g.ask(post(chat())).status == 200
    wait_until(lambda: not u.open, 5)


# --- descriptors -----------------------------------------------------------------------------------

def test_D1_without_descriptors_it_neither_spins_nor_forgets(gateway, upstream):
    go = threading.Event()

    def script(request, conn):
        conn.send(event_stream() + chunked(b"data: 1\n\n", last=False))
        go.wait(30)
        conn.send(chunked(b"data: [DONE]\n\n"))
    u, plain = upstream(script), upstream(name="plain")
    g = gateway(workers=1, before=["prlimit", "--nofile=48:48"],
                models=[one(u), model("plain", {"v1": (1, [plain])})])
    stream = g.wire().send(post(chat(stream=True)))
    top = stream.head()
    wires = []
    for _ in range(100):
        w = Wire(g.address)
        w.s.setblocking(True)
        wires.append(w)
    time.sleep(0.5)
    cpu, began = g.cpu_seconds(), time.monotonic()
    time.sleep(1)
    share = (g.cpu_seconds() - cpu) / (time.monotonic() - began)
    assert share < 0.2, f"{share:.0%} of a core at EMFILE"
    assert g.counters.all()["refused"] > 0
    go.set()
    stream.body(top)
    assert top.complete, "a running stream is not disturbed"
    for w in wires:
        w.close()
    wait_until(lambda: g.ask(post(chat(model="plain"))).status == 200, 10, "it recovers by itself")
    stream.close()


def test_D1_without_descriptors_for_engines_requests_wait(gateway, upstream):
    """Clients have taken them all; the engine's turn comes when one leaves."""
    u = upstream()
    g = gateway(workers=1, before=["prlimit", "--nofile=40:40"], models=one(u))
    wires = []
    while g.counters.all()["refused"] == 0 and len(wires) < 60:
        wires.append(g.wire())
        time.sleep(0.01)
    served = [w for w in wires if not _closed(w)]
    served[0].send(post(chat("patient")))
    wait_until(lambda: g.counters.all()["held"] == 1, 5)
    for w in served[1:]:
        w.close()
    assert served[0].answer().status == 200


def _closed(w):
    w.s.setblocking(False)
    try:
        return w.s.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        w.s.settimeout(30)


def test_D13_a_burst_of_connections_is_served(gateway, upstream):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    g = gateway(models=one(upstream()), limits={"connections": 5000})
    try:
        wires = [g.wire() for _ in range(1500)]
        for w in wires:
            w.send(head("GET", "/health"))
        assert all(w.answer().status == 200 for w in wires)
        per_connection = 0
        if SLOW == 1:
            per_connection = g.rss() / 1500
            assert per_connection < 10_000
        for w in wires:
            w.close()
        wait_until(lambda: g.counters.all()["connections"] == 0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_D8_after_a_pause_of_the_gateway_nothing_is_ejected(gateway, upstream):
    """SIGSTOP, SIGCONT: deadlines that passed meanwhile fire once; healthy engines stay."""
    u = upstream()
    g = gateway(models=one(u))
    with g.wire() as w:
        assert w.ask(post(chat())).status == 200
        os.kill(g.pid, signal.SIGSTOP)
        w.send(post(chat("while paused")))
        late = Wire(g.address).send(post(chat("connected while paused")))
        time.sleep(1)
        os.kill(g.pid, signal.SIGCONT)
        assert w.answer().status == 200 and late.answer().status == 200
        late.close()
    assert g.counters.all()["errors_5xx"] == 0


def test_C_a_reader_at_a_kilobyte_a_second_is_not_cut(gateway, upstream):
    """The socket has megabytes that it still owes; that the client takes some is seen there."""
    u = upstream(lambda r, c: c.send(answer(b"x" * 8 * MB)))
    g = gateway(workers=1, models=one(u), timeouts={"send": 1500})
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    s.settimeout(20)
    s.connect(g.address)
    s.sendall(post(chat()))
    got = 0
    for _ in range(25):
        got += len(s.recv(1024))
        time.sleep(0.2)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MB)
    while got < 8 * MB:
        data = s.recv(MB)
        assert data, f"cut after {got} bytes"
        got += len(data)
    s.close()


def test_C_what_a_cut_client_has_not_taken_is_not_kept_by_the_kernel(gateway, upstream):
    """A reset: else its megabytes would wait there for minutes."""
    u = upstream(lambda r, c: c.send(answer(b"x" * 8 * MB)))
    g = gateway(workers=1, models=one(u), timeouts={"send": 500})
    with g.wire() as w:
        w.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        w.send(post(chat()))
        wait_until(lambda: g.counters.all()["closed"] == 1, 10, "it was cut")
        a = w.answer()
        assert a.reset and not a.complete and len(a.body) < MB
