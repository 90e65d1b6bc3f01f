"""No replica is ready: requests wait, bounded in number and time, in order; and what is tried again."""
import threading
import time

import pytest

from harness import (SLOW, answer, chat, chunked, event_stream, head, model, post, replica,
                     wait_until)

pytestmark = pytest.mark.gateway


def held(g, n):
    wait_until(lambda: g.counters.all()["held"] == n, what=f"{n} requests are held")


def expecting(u, ready=False, **more):
    return model(versions={"v1": (1, [replica(u, ready=ready)])}, expected=True, **more)


def content(a):
    assert a.status == 200 and a.complete, a
    return a.json()["choices"][0]["message"]["content"]


def test_held_requests_are_released_in_order_by_a_new_table(gateway, upstream):
    u = upstream()
    g = gateway(workers=1, models=expecting(u))
    wires = []
    for i in range(20):
        wires.append(g.wire().send(post(chat(f"h{i}"))))
        held(g, i + 1)
    assert u.requests == []
    g.publish(expecting(u, ready=True))
    assert [content(w.answer()) for w in wires] == [f"h{i}" for i in range(20)]
    # One worker sends in order; each goes over its own connection.
    g.settled()
    counters = g.counters.all()
    assert counters["held_total"] == counters["unheld"] == 20
    assert counters["hold_expired"] == 0


def test_order_is_kept_with_an_engine_of_one_connection(gateway, upstream):
    """The order in which the worker dispatches: by the counters' last start and the engine's ear."""
    order, lock = [], threading.Lock()

    def script(request, conn):
        with lock:
            order.append((request.at_ns, request.text()))
        conn.send(answer({"ok": 1}))
    u = upstream(script, unix=True)
    g = gateway(workers=1, models=expecting(u))
    wires = []
    for i in range(10):
        wires.append(g.wire().send(post(chat(f"{i}"))))
        held(g, i + 1)
    g.publish(expecting(u, ready=True))
    assert all(w.answer().status == 200 for w in wires)
    # A unix listener hands connections out in the order of connect(2).
    assert [c.number for c in u.conns] == list(range(10))
    by_conn = sorted(u.requests, key=lambda r: r.conn.number)
    assert [r.text() for r in by_conn] == [str(i) for i in range(10)]


def test_hold_deadline_is_503_with_retry_after(gateway, upstream):
    u = upstream()
    g = gateway(models=expecting(u, hold_ms=300))
    a = g.ask(post(chat()))
    assert a.status == 503 and a.get("retry-after") and a.error["code"] == "hold_expired"
    assert 0.25 < a.seconds < 2 * SLOW
    assert g.counters.all()["hold_expired"] == 1 and g.counters.all()["held"] == 0
    # The connection goes on.
    with g.wire() as w:
        for _ in range(2):
            assert w.ask(post(chat())).status == 503


def test_hold_0_is_refused_at_once(gateway, upstream):
    g = gateway(models=expecting(upstream(), hold_ms=0))
    a = g.ask(post(chat()))
    assert a.status == 503 and a.get("retry-after") and a.seconds < 1


def test_nothing_expected_is_refused_at_once(gateway, upstream):
    """A5: no engine, and none will come."""
    g = gateway(models=model(versions={"v1": (1, [replica(upstream(), ready=False)])}))
    a = g.ask(post(chat()))
    assert a.status == 503 and a.error["code"] == "no_replica" and a.get("retry-after")
    assert a.seconds < 1
    g.publish(model(versions={"v1": (1, [])}))
    assert g.ask(post(chat())).status == 503
    g.publish(model(versions={}))
    assert g.ask(post(chat())).status == 503


def test_overload_is_503_at_once(gateway, upstream):
    u = upstream()
    g = gateway(workers=1, models=expecting(u, hold_max=5))
    wires = [g.wire().send(post(chat(f"{i}"))) for i in range(5)]
    held(g, 5)
    a = g.ask(post(chat("one too many")))
    assert a.status == 503 and a.error["code"] == "overloaded" and a.seconds < 1
    g.publish(expecting(u, ready=True, hold_max=5))
    assert [content(w.answer()) for w in wires] == [str(i) for i in range(5)]


def test_a_held_request_is_forgotten_when_its_client_leaves(gateway, upstream):
    u = upstream()
    g = gateway(workers=1, models=expecting(u))
    wires = [g.wire().send(post(chat(f"{i}"))) for i in range(6)]
    held(g, 6)
    for i in (0, 2, 5):
        wires[i].close()
    wires[3].reset()
    held(g, 2)
    g.publish(expecting(u, ready=True))
    assert content(wires[1].answer()) == "1" and content(wires[4].answer()) == "4"
    g.settled()
    assert sorted(r.text() for r in u.requests) == ["1", "4"]


def test_a_pinned_request_is_held_for_its_version(gateway, upstream):
    one, two = upstream(name="one"), upstream(name="two")

    def table(ready):
        return model(versions={"v1": (1, [one]), "v2": (0, [replica(two, ready=ready)])},
                     expected=True)
    g = gateway(workers=1, models=table(False))
    w = g.wire().send(post(chat("pinned", model="m@v2")))
    held(g, 1)
    assert content(g.ask(post(chat("free")))) == "free"
    g.publish(table(True))
    assert content(w.answer()) == "pinned"
    assert [r.text() for r in two.requests] == ["pinned"]


def test_a_held_request_goes_to_the_version_that_serves_when_it_is_released(gateway, upstream):
    one, two = upstream(name="one"), upstream(name="two")
    g = gateway(models=expecting(one))
    w = g.wire().send(post(chat("late")))
    held(g, 1)
    g.publish(model(versions={"v1": (0, []), "v2": (1, [two])}))
    a = w.answer()
    assert content(a) == "late" and a.get("x-segue-version") == "m@v2"


def test_held_model_that_is_removed_gets_404(gateway, upstream):
    g = gateway(models=expecting(upstream()))
    w = g.wire().send(post(chat("x")))
    held(g, 1)
    g.publish(model("other", {"v1": (1, [])}))
    assert w.answer().status == 404


def test_held_streams_work_too(gateway, upstream):
    u = upstream()
    g = gateway(models=expecting(u))
    w = g.wire().send(post(chat("s", stream=True)))
    held(g, 1)
    g.publish(expecting(u, ready=True))
    a = w.answer()
    assert a.complete and a.events()[-1] == "[DONE]"


def test_other_models_are_not_disturbed_by_held_requests(gateway, upstream):
    u, other = upstream(), upstream()
    g = gateway(workers=1, models=[expecting(u), model("other", {"v1": (1, [other])})])
    wires = [g.wire().send(post(chat())) for _ in range(50)]
    held(g, 50)
    cpu = g.cpu_seconds()
    began = time.monotonic()
    with g.wire() as w:
        while time.monotonic() - began < 1:
            assert w.ask(post(chat(model="other"))).seconds < 0.5 * SLOW
            time.sleep(0.02)
    assert g.cpu_seconds() - cpu < 0.5, "waiting costs next to nothing"
    for w in wires:
        w.close()
    held(g, 0)


# --- another replica, another connection -----------------------------------------------------

def test_A2_an_engine_that_dies_before_its_answer_costs_nothing_with_another_replica(gateway,
                                                                                   upstream):
    bad = upstream(lambda r, c: c.close(), name="bad")
    good = upstream(name="good")
    g = gateway(models=model(versions={"v1": (1, [bad, good])}))
    with g.wire() as w:
        for i in range(40):
            assert content(w.ask(post(chat(f"{i}")))) == str(i)
    assert bad.requests and g.replica(bad)["retried"] >= 1
    assert sum(g.replica(u)["begun"] for u in (bad, good)) == 40 + g.replica(bad)["retried"]


def test_A2_a_request_that_kills_engines_is_tried_twice_and_no_more(gateway, upstream):
    us = [upstream(lambda r, c: c.close(), name=f"e{i}") for i in range(5)]
    g = gateway(models=model(versions={"v1": (1, us)}))
    a = g.ask(post(chat("poison")))
    assert a.status == 502 and a.error["code"] == "engine_gone"
    assert sum(len(u.requests) for u in us) == 2


def test_A2_and_on_kept_connections_no_more_either(gateway, upstream):
    """A kept connection that ends without a byte may have been closed before the request came, or
    by it. Either way few engines may see the request."""
    def script(request, conn):
        if request.text() == "poison":
            conn.close()
        else:
            conn.send(answer({"choices": [{"message": {"content": request.text()}}]}))
    us = [upstream(script, name=f"e{i}") for i in range(5)]
    g = gateway(workers=1, models=model(versions={"v1": (1, us)}))
    with g.wire() as w:
        wait_until(lambda: w.ask(post(chat("x"))).status == 200 and all(u.conns for u in us), 10,
                   "a kept connection to each engine", every=0)
        a = w.ask(post(chat("poison")))
    assert a.status == 502
    seen = [r for u in us for r in u.requests if r.text() == "poison"]
    assert len(seen) <= 3, f"{len(seen)} engines have seen it"


def test_F6_a_replica_that_refuses_connections_is_passed_over(gateway, upstream):
    down = upstream(name="down", listen=False)
    good = upstream(name="good")
    g = gateway(models=model(versions={"v1": (1, [down, good])}))
    with g.wire() as w:
        for i in range(30):
            assert content(w.ask(post(chat(f"{i}")))) == str(i)


def test_A5_all_replicas_refuse_then_one_is_back(gateway, upstream):
    """Requests wait while the table says that the engine is ready, and succeed when it is."""
    u = upstream(listen=False)
    g = gateway(models=model(versions={"v1": (1, [u])}))
    wires = [g.wire().send(post(chat(f"{i}"))) for i in range(10)]
    held(g, 10)
    u.listen()
    assert [content(w.answer()) for w in wires] == [str(i) for i in range(10)]
    assert g.counters.all()["held_total"] == 10, "each has waited once"
    assert g.counters.all()["errors_5xx"] == 0


def test_A5_all_replicas_refuse_until_the_deadline(gateway, upstream):
    u = upstream(listen=False)
    g = gateway(models=model(versions={"v1": (1, [u])}, hold_ms=400))
    cpu = g.cpu_seconds()
    wires = [g.wire().send(post(chat(f"{i}"))) for i in range(20)]
    for w in wires:
        a = w.answer()
        assert a.status == 503 and a.get("retry-after")
    assert g.cpu_seconds() - cpu < 1 * SLOW, "no storm of connects"
    g.settled()


def test_a_unix_engine_that_is_not_there_yet(gateway, upstream, box):
    path = f"unix:{box.folder}/late.sock"
    g = gateway(models=model(versions={"v1": (1, [path])}))
    w = g.wire().send(post(chat("late")))
    held(g, 1)
    u = upstream(unix=True, name="late")
    assert u.address == path
    assert content(w.answer()) == "late"


def test_a_stale_kept_connection_costs_nothing(gateway, upstream):
    """The engine closes its kept connection at the moment when it is used again."""
    def script(request, conn):
        conn.send(answer({"choices": [{"message": {"content": request.text()}}]}))
        conn.close()  # without saying so
    u = upstream(script)
    g = gateway(workers=1, models=model(versions={"v1": (1, [u])}))
    with g.wire() as w:
        for i in range(200):
            assert content(w.ask(post(chat(f"{i}")))) == str(i)
    assert len(u.requests) == 200
    assert g.replica(u)["failed"] == 0


def test_A1_engine_gone_with_many_streams(gateway, upstream):
    """All streams end visibly, the gauges go back to 0, other models do not notice."""
    def script(request, conn):
        conn.send(event_stream() + chunked(b"data: 1\n\n", last=False))
        conn.wait_end()
    u, other = upstream(script), upstream()
    g = gateway(models=[model(versions={"v1": (1, [u])}), model("other", {"v1": (1, [other])})])
    wires = [g.wire().send(post(chat(stream=True))) for _ in range(50)]
    heads = [w.head() for w in wires]
    wait_until(lambda: g.replica(u)["in_flight"] == 50)
    began = time.monotonic()
    u.stop()
    for w, a in zip(wires, heads):
        w.body(a)
        assert not a.complete and a.events()[0] == "1" and "error" in a.events()[-1]
    assert time.monotonic() - began < 1 * SLOW
    assert g.ask(post(chat(model="other"))).status == 200
    g.settled()
    assert g.replica(u)["truncated"] == 50


def test_a_new_engine_at_the_same_slot_is_used_at_once(gateway, upstream):
    old, new = upstream(name="old"), upstream(name="new")
    g = gateway(workers=1, models=model(versions={"v1": (1, [replica(old, slot=7)])}))
    with g.wire() as w:
        assert content(w.ask(post(chat("a")))) == "a"
        old.stop()
        g.publish(model(versions={"v1": (1, [replica(new, slot=7)])}))
        assert content(w.ask(post(chat("b")))) == "b"
    assert g.counters.replica(7)["retried"] == 0


def test_readiness_follows_the_table(gateway, upstream):
    u = upstream()
    g = gateway(models=expecting(u))
    assert g.ask(head("GET", "/readiness")).status == 503
    g.publish(expecting(u, ready=True))
    assert g.ask(head("GET", "/readiness")).status == 200
