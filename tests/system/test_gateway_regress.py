"""What was wrong once: each test fails without its fix."""
import hashlib
import json
import os
import select
import signal
import socket
import threading
import time

import pytest

from harness import (SLOW, answer, chat, chunked, event_stream, head, model, post, replica,
                     wait_until)

pytestmark = pytest.mark.gateway


def expecting(u, ready=False, **more):
    return model(versions={"v1": (1, [replica(u, ready=ready)])}, expected=True, **more)


def error_of(body):
    """The error object in the last event of a stream; the event has nothing else in it."""
    event = body.decode().removesuffix("\n\n").rsplit("\n\n", 1)[-1]
    assert event.startswith("data: {") and "\n" not in event, event
    return json.loads(event[6:])["error"]


# --- held streams ---


def test_held_stream_hears_from_us_and_then_only_from_its_engine(gateway, upstream):
    """The retry of held requests moved the next heartbeat away for ever; and the answer that came
    at last was preceded by bytes of another head."""
    u = upstream()
    g = gateway(workers=1, models=expecting(u, hold_ms=60000))
    with g.wire().send(post(chat(stream=True))) as w:
        a = w.head()
        assert (a.status, a.get("content-type")) == (200, "text/event-stream")
        g.publish(expecting(u, ready=True))
        w.body(a)
        assert a.complete
        lines = [line for line in a.body.split(b"\n") if line]
        assert lines[0] == b": waiting" and lines[-1] == b"data: [DONE]"
        assert all(line == b": waiting" or line.startswith(b"data: ") for line in lines), lines


def test_error_in_a_stream_is_json_of_any_length(gateway, upstream):
    """A sentence that did not fit ended the gateway; a quote in a name ended the JSON."""
    g = gateway(workers=1, models=expecting(upstream(), name='say "m"', hold_ms=60000))
    with g.wire().send(post(chat(model='say "m"', stream=True))) as w:
        a = w.head()
        g.publish([model(name=f"name-{i:02}-" + "x" * 100) for i in range(20)])
        w.body(a)
        assert not a.complete
        error = error_of(a.body)
        assert error["code"] == "model_not_found" and 'say "m"' in error["message"]
    assert g.process.running()


def test_error_in_a_stream_is_an_event_of_its_own(gateway, upstream):
    def script(request, conn):
        conn.send(event_stream() + chunked(b"data: half\n", last=False))
        conn.close()
    g = gateway(models=model(versions={"v1": (1, [upstream(script)])}))
    a = g.ask(post(chat(stream=True)))
    assert not a.complete and a.body.startswith(b"data: half\n\n")
    assert error_of(a.body)["code"] == "engine_gone"


# --- connections ---


def test_refused_upload_may_go_on_until_its_answer_is_read(gateway, upstream):
    """The connection was closed at once, so that the rest of the upload reset it."""
    g = gateway(workers=1, models=model(versions={"v1": (1, [upstream()])}))
    with g.wire() as w:
        w.send(head("POST", "/v1/chat/completions", "Content-Length: 100000000") + b"{")
        wait_until(lambda: g.counters.all()["answered"] == 1, what="it is refused")
        for _ in range(50):
            w.send(b" " * 1000)
            time.sleep(0.002)
        a = w.answer()
        assert a.status == 413 and a.complete and a.get("connection") == "close"
        assert w.ended()


def test_connection_that_ended_with_its_answer_is_not_used_again(gateway, upstream):
    go, gone = threading.Event(), threading.Event()

    def script(request, conn):
        assert go.wait(30)
        conn.send(answer({"ok": 1}))
        conn.close()
        gone.set()
    u = upstream(script)
    g = gateway(workers=1, models=model(versions={"v1": (1, [u])}))
    with g.wire().send(post(chat())) as w:
        wait_until(lambda: u.requests, what="the engine has the request")
        os.kill(g.pid, signal.SIGSTOP)  # the answer and the end become one event
        go.set()
        assert gone.wait(30)
        os.kill(g.pid, signal.SIGCONT)
        assert w.answer().status == 200
        assert w.ask(post(chat())).status == 200
    assert g.replica(u)["retried"] == 0


def test_waiting_connections_cost_a_draining_gateway_nothing(gateway, upstream):
    """The listening sockets are the manager's too: closed here they stayed in the epoll set."""
    done = threading.Event()

    def script(request, conn):
        conn.send(event_stream() + chunked(b"data: 1\n\n", last=False))
        done.wait(60)
        conn.send(chunked(b"data: [DONE]\n\n"))
    g = gateway(workers=1, models=model(versions={"v1": (1, [upstream(script)])}))
    with g.wire().send(post(chat(stream=True))) as w:
        a = w.head()
        idle = g.wire()
        wait_until(lambda: g.counters.all()["connections"] == 2, what="the idle client is there")
        g.send({"type": "stop", "drain_ms": 60000})
        assert idle.ended()  # it drains
        with socket.create_connection(g.address):
            before = g.cpu_seconds()
            time.sleep(1)
            assert g.cpu_seconds() - before < 0.3
        done.set()
        assert w.body(a).complete


# --- choosing ---


def test_a_failed_replica_does_not_shadow_another_versions(gateway, upstream):
    """What had been tried of one version was taken for the other's replicas."""
    def dies(request, conn):
        conn.close()
    bad, good = upstream(dies), upstream(lambda r, conn: conn.send(answer({"ok": 1})))
    g = gateway(workers=1, models=model(versions={"v1": (1, [bad]), "v2": (1, [good])}, hold_ms=0))
    for i in range(60):
        # Nothing in it names a conversation: each try may take either version.
        g.ask(post({"model": "m", "input": "x"}, f"X-Request-Id: r{i}", target="/v1/embeddings"))
        g.publish()  # ends the pause of what has failed
    moved = ({r.get("x-request-id") for r in bad.requests} &
             {r.get("x-request-id") for r in good.requests})
    assert len(bad.requests) > 5 and moved


def test_a_long_answer_after_a_failure_does_not_keep_the_others_waiting(gateway, upstream):
    """After a failure one request goes first; the others waited until its answer began."""
    go = threading.Event()

    def script(request, conn):
        if request.text() == "dies":
            conn.close()
            return
        if request.text() == "long":
            assert go.wait(60)
        conn.send(answer({"ok": 1}))
    u = upstream(script)
    g = gateway(workers=1, models=model(versions={"v1": (1, [u])}, hold_ms=20000))
    assert g.ask(post(chat("dies"))).status == 502
    with g.wire().send(post(chat("long"))) as w:
        wait_until(lambda: u.requests[-1].text() == "long", what="the first goes ahead")
        a = g.ask(post(chat("short")))
        assert a.status == 200 and a.seconds < 4 * SLOW
        go.set()
        assert w.answer().status == 200


def test_an_engine_that_refuses_a_held_stream_is_not_paused(gateway, upstream):
    def script(request, conn):
        conn.send(answer({"error": {}}, 400, reason="Bad Request") if request.json().get("stream")
                  else answer({"ok": 1}))
    u = upstream(script)
    g = gateway(workers=1, models=expecting(u, hold_ms=60000))
    with g.wire().send(post(chat(stream=True))) as w, g.wire() as other:
        a = w.head()
        g.publish(expecting(u, ready=True))
        w.body(a)
        assert error_of(a.body)["code"] == "bad_gateway"
        assert other.ask(post(chat())).status == 200
    assert g.counters.all()["held_total"] == 1


# --- keys ---


@pytest.mark.parametrize("required", [True, False])
def test_no_key_of_ours_reaches_an_engine(gateway, upstream, required):
    """Only the field that showed the accepted key was kept back."""
    first, second, revoked = ("sk-segue-" + c * 64 for c in "abc")
    keys = [{"name": c, "sha256": hashlib.sha256(k.encode()).hexdigest(), "models": [],
             "concurrency": 0, "rate": 0} for c, k in (("a", first), ("b", second))]
    u = upstream()
    g = gateway(models=model(versions={"v1": (1, [u])}),
                extra={"keys": keys, "keys_required": required})
    for fields in ([f"Authorization: Bearer {first}", f"X-Api-Key: {second}"],
                   [f"X-Api-Key: {first}", f"Authorization: Bearer {revoked}"],
                   [f"X-Api-Key: {first}", "Authorization: Bearer sk-of-the-engine"]):
        assert g.ask(post(chat(), *fields)).status == 200
    assert not [v for r in u.requests for _, v in r.fields if "sk-segue-" in v]
    assert u.requests[-1].get("authorization") == "Bearer sk-of-the-engine"


# --- limits ---


def test_a_large_body_that_comes_alone_is_taken(gateway, upstream):
    """A worker's part of limits.body_memory_bytes is less than the body."""
    g = gateway(workers=4, models=model(versions={"v1": (1, [upstream()])}),
                limits={"body_memory_bytes": 1 << 20})
    for n in (200000, 500000, 1000000):
        assert g.ask(post(chat("x" * n))).status == 200


def test_held_bodies_count_against_the_memory_of_bodies(gateway, upstream):
    """Requests that wait keep their bodies: a thousand large ones may not take the memory."""
    u = upstream()
    waiting = model(versions={"v1": (1, [replica(u, ready=False)])}, expected=True)
    g = gateway(workers=1, models=waiting, limits={"body_memory_bytes": 4 << 20})
    wires, refused = [], 0
    for _ in range(12):
        w = g.wire().send(post(chat("x" * 900_000)))
        before = len(wires)
        wait_until(lambda: g.counters.all()["held"] == before + 1
                   or select.select([w.s], [], [], 0)[0], what="held or refused")
        if g.counters.all()["held"] == before + 1:
            wires.append(w)
        else:
            a = w.answer()
            assert a.status == 503 and "body_memory_bytes" in a.error["message"], a
            refused += 1
    assert 2 <= len(wires) <= 5 and refused == 12 - len(wires)
    g.publish(model(versions={"v1": (1, [u])}))
    for w in wires:
        assert w.answer().status == 200
    g.settled()
    assert g.ask(post(chat("x" * 900_000))).status == 200  # all of it was given back
