"""The gateway's own life: drain, kill -9, managers that come and go, counters that add up."""
import os
import random
import signal
import threading
import time

import pytest

from harness import (SLOW, Wire, answer, binary, chat, chunked, event_stream, head, model, post,
                     wait_until)

pytestmark = pytest.mark.gateway


def one(u, **more):
    return model(versions={"v1": (1, [u])}, **more)


@pytest.fixture
def streaming(gateway, upstream):
    """A gateway with an engine whose streams end when `go` is set."""
    go = threading.Event()

    def script(request, conn):
        conn.send(event_stream() + chunked(b"data: 1\n\n", last=False))
        if go.wait(60):
            conn.send(chunked(b"data: [DONE]\n\n"))
    u = upstream(script)
    return gateway(models=one(u)), u, go


def test_hello_says_who_and_hands_over_the_descriptors(gateway, upstream):
    g = gateway(workers=2, models=one(upstream()))
    assert g.hello["pid"] == g.pid and g.hello["workers"] == 2 and g.hello["epoch"] == 0
    assert g.hello["listen"] == ["127.0.0.1:%d" % g.address[1]]
    assert len(g.received) == 2 + 2, "the counters, the control socket, and a listener a worker"
    inodes = {os.fstat(fd).st_ino for fd in g.received}
    assert os.fstat(g.counters.fd).st_ino in inodes
    assert {os.fstat(s.fileno()).st_ino for s in g.listeners} <= inodes


def test_the_manager_is_gone_and_the_gateway_goes_on(gateway, upstream):
    u = upstream()
    g = gateway(models=one(u))
    g.publish()
    with g.wire() as w:
        assert w.ask(post(chat("a"))).status == 200
        g.forget()
        for i in range(20):
            assert w.ask(post(chat(f"{i}"))).status == 200
    hello = g.connect()
    assert (hello["pid"], hello["epoch"]) == (g.pid, 2)
    g.publish(one(u))
    assert g.epoch == 3 and g.ask(post(chat())).status == 200


def test_a_new_manager_replaces_the_one_before(gateway, upstream):
    g = gateway(models=one(upstream()))
    old = g.connection
    g.connection = None
    assert g.connect()["epoch"] == 1
    assert old.recv(1) == b"", "the old one is let go"
    old.close()
    assert g.publish()["epoch"] == 2


def test_an_acknowledgement_without_a_manager_is_in_the_next_hello(gateway, upstream):
    u = upstream()
    g = gateway(models=one(u))
    g.send(g.table())
    g.forget()
    wait_until(lambda: g.connect()["epoch"] == 2, 5)


def test_nonsense_on_the_control_socket_is_survived(gateway, upstream):
    g = gateway(models=one(upstream()))
    for data in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x02\x00\x00\x00[]",
                 b"\x05\x00\x00\x00hello", b"\x0e\x00\x00\x00{\"type\":\"hm\"}"):
        g.connection.sendall(data)
        assert g.ask(post(chat())).status == 200
        g.connect()
    assert g.publish()["epoch"] == 2


def test_E1_sigterm_drains(streaming):
    g, u, go = streaming
    idle = g.wire()
    assert idle.ask(head("GET", "/health")).status == 200
    stream = g.wire().send(post(chat(stream=True)))
    a = stream.head()
    half = g.wire().send(post(chat())[:20])
    wait_until(lambda: g.counters.all()["connections"] == 3)
    g.process.signal(signal.SIGTERM)
    assert idle.ended(5), "idle connections are closed"
    half.send(post(chat())[20:])
    b = half.head()
    assert b.get("connection") == "close"
    assert g.process.running()
    go.set()
    stream.body(a)
    half.body(b)
    assert a.complete and b.complete
    assert g.process.wait(10) == 0


def test_E1_connections_of_a_draining_gateway_wait_for_the_next(gateway, upstream):
    """The manager holds the listening sockets: nobody is refused between two gateways."""
    u = upstream()
    g = gateway(models=one(u))
    assert g.ask(post(chat())).status == 200
    g.process.signal(signal.SIGTERM)
    assert g.process.wait(10) == 0
    wires = [g.wire().send(post(chat(f"{i}"))) for i in range(20)]
    g.start()
    g.publish()
    assert all(w.answer().status == 200 for w in wires)


def test_stop_cuts_what_runs_when_its_time_is_over(streaming):
    """A14: visibly, and counted as cut, not as a wish of the client."""
    g, u, go = streaming
    wires = [g.wire().send(post(chat(stream=True))) for _ in range(3)]
    heads = [w.head() for w in wires]
    old = g.wire().send(post(chat(stream=True), version="HTTP/1.0"))
    old_head = old.head()
    g.send({"type": "stop", "drain_ms": 300})
    for w, a in zip(wires, heads):
        w.body(a)
        assert not a.complete and "[DONE]" not in a.events()
    old.body(old_head)
    assert not old_head.complete, "an answer that ends with its connection must be reset"
    assert g.process.wait(10) == 0
    assert g.replica(u)["truncated"] == 4 and g.replica(u)["in_flight"] == 0


def test_a_second_signal_ends_at_once(streaming):
    g, u, go = streaming
    w = g.wire().send(post(chat(stream=True)))
    w.head()
    g.process.signal(signal.SIGTERM)
    time.sleep(0.2)
    assert g.process.running()
    g.process.signal(signal.SIGTERM)
    assert g.process.wait(5) == 0


def test_E3_kill_9_refuses_no_connection_and_loses_no_count(streaming, upstream):
    g, u, go = streaming
    wires = [g.wire().send(post(chat(stream=True))) for _ in range(10)]
    for w in wires:
        w.head()
    before = g.replica(u)
    assert before["in_flight"] == 10
    g.process.kill9()
    late = [g.wire().send(post(chat(stream=True))) for _ in range(10)]
    go.set()
    g.start()
    g.publish()
    for w in late:
        a = w.answer()
        assert a.status == 200 and a.complete
    g.settled()
    c = g.replica(u)
    assert (c["truncated"], c["finished"], c["in_flight"]) == (10, 10, 0)
    total = g.counters.all()
    assert total["held"] == 0
    wait_until(lambda: g.counters.all()["connections"] == len(late))


def test_E3_kill_9_again_and_again_under_load(gateway, upstream):
    """Between two gateways requests fail visibly or wait; none is answered wrongly."""
    u = upstream()
    g = gateway(models=one(u))
    stop, wrong, good = threading.Event(), [], [0]

    def ask(n):
        i = 0
        while not stop.is_set():
            i += 1
            try:
                with Wire(g.address) as w:
                    a = w.ask(post(chat(f"{n}-{i}")))
                    if a.complete and a.json()["choices"][0]["message"]["content"] != f"{n}-{i}":
                        wrong.append(repr(a))
                    good[0] += a.complete
            except ConnectionRefusedError as e:
                wrong.append(repr(e))
            except (OSError, EOFError):
                pass
    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for _ in range(5):
        was = good[0]
        wait_until(lambda: good[0] > was + 20)
        g.process.kill9()
        g.start()
        g.publish()
    stop.set()
    for t in threads:
        t.join(30)
    assert not wrong, wrong[:5]
    g.settled()


def test_counters_add_up(gateway, upstream):
    """Whatever happens to a request, it is booked once, and nothing stays open."""
    rng = random.Random(5)

    def script(request, conn):
        kind = request.text()
        if kind == "ok":
            conn.send(answer({"ok": 1}))
        elif kind == "500":
            conn.send(answer({"error": 1}, 500))
        elif kind == "cut":
            conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
            time.sleep(0.01)
            conn.close()
        elif kind == "gone":
            conn.close()
        elif kind == "leave":
            conn.wait_end()
    u = upstream(script)
    g = gateway(models=one(u, hold_ms=2000))
    kinds = [rng.choice(["ok", "500", "cut", "gone", "leave", "bad", "404"]) for _ in range(300)]
    left = 0
    for kind in kinds:
        with g.wire() as w:
            if kind == "bad":
                w.send(b"nonsense\r\n\r\n")
            elif kind == "404":
                w.send(post(chat(model="x")))
            else:
                w.send(post(chat(kind)))
            if kind == "leave":
                left += 1
                wait_until(lambda: sum(r.text() == "leave" for r in u.requests) == left)
            else:
                a = w.answer()
                want = {"ok": 200, "500": 500, "cut": 200, "gone": 502, "bad": 400, "404": 404}
                assert a.status == want[kind], (kind, a)
    g.settled()
    wait_until(lambda: g.counters.all()["connections"] == 0)
    n = {k: kinds.count(k) for k in set(kinds)}
    c, all_ = g.replica(u), g.counters.all()
    assert c["finished"] == n["ok"] and c["truncated"] == n["cut"] and c["cancelled"] == n["leave"]
    assert c["failed"] == n["500"] + n["gone"]
    assert c["begun"] == (c["finished"] + c["failed"] + c["truncated"] + c["cancelled"]
                          + c["retried"])
    assert all_["requests"] == len(kinds) - n["bad"]
    assert all_["answered"] == len(kinds) - n["leave"] - n["cut"]
    assert all_["errors_4xx"] == n["bad"] + n["404"] and all_["errors_5xx"] == n["gone"]
    assert all_["opened"] == all_["closed"] == len(kinds)


def test_nothing_is_left_behind(gateway, upstream):
    """Descriptors and memory are as before after all kinds of ends."""
    u = upstream()
    g = gateway(models=one(u), timeouts={"upstream_idle": 100})

    def round_of_everything():
        for i in range(60):
            with g.wire() as w:
                if i % 5 == 0:
                    w.send(post(chat("x" * 10000))[:5000])
                elif i % 5 == 1:
                    w.send(b"nonsense\r\n\r\n").answer()
                elif i % 5 == 2:
                    w.send(post(chat(stream=True))).reset()
                else:
                    w.ask(post(chat("y" * 1000, stream=i % 2 == 0)))
        wait_until(lambda: g.counters.all()["connections"] == 0 and not u.open)
        g.settled()
    round_of_everything()
    descriptors, rss = g.descriptors(), g.rss()
    for _ in range(5):
        round_of_everything()
    wait_until(lambda: g.descriptors() <= descriptors, 5)
    assert g.rss() - rss < (6 << 20) * SLOW


def test_started_by_hand_it_says_so(box):
    p = box.start("byhand", [binary("segue"), "gateway"])
    assert p.wait() == 2
    p.expect.add(2)
    assert "segue serve" in p.text()
