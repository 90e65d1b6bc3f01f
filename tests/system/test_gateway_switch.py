"""A switch is a point in time: what starts after its acknowledgement never reaches the old version."""
import json
import threading
import time

import pytest

from harness import (Refused, answer, chat, chunked, event_stream, head, model, post, wait_until)

pytestmark = pytest.mark.gateway


def versions(one, two, serving, **more):
    return model(versions={"v1": (serving == "v1", [one]), "v2": (serving == "v2", [two])}, **more)


def table(one, two, serving, **more):
    m = versions(one, two, serving, **more)
    for v in m["versions"]:
        v["weight"] = int(v["weight"])
    return m


@pytest.fixture
def pair(gateway, upstream):
    one, two = upstream(name="one", unix=True), upstream(name="two", unix=True)
    return gateway(workers=2, models=table(one, two, "v1")), one, two


class Asking:
    """Threads that ask without a pause and note when each request began and who answered."""

    def __init__(self, g, threads=8, stream_every=0):
        self.g, self.stop, self.notes, self.wrong = g, False, [], []
        self.stream_every = stream_every
        self.threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]
        for t in self.threads:
            t.start()

    def _run(self, n):
        try:
            with self.g.wire() as w:
                i = 0
                while not self.stop:
                    i += 1
                    stream = self.stream_every and i % self.stream_every == 0
                    data = post(chat(f"{n}-{i}", stream=bool(stream)))
                    began = time.monotonic_ns()
                    a = w.ask(data)
                    version = a.get("x-segue-version")
                    self.notes.append((began, time.monotonic_ns(), version))
                    self._check(a, f"{n}-{i}", stream, version)
        except Exception as e:
            self.wrong.append(repr(e))

    def _check(self, a, text, stream, version):
        if a.status != 200 or not a.complete:
            self.wrong.append(repr(a))
            return
        parts = [json.loads(e) for e in a.events()[:-1]] if stream else [a.json()]
        if stream and a.events()[-1] != "[DONE]":
            self.wrong.append(f"no [DONE]: {a}")
        said = "".join((p["choices"][0].get("delta") or p["choices"][0].get("message"))["content"]
                       for p in parts)
        if said != text or {p["model"] for p in parts} != {version}:
            self.wrong.append(f"{text}: {a}")

    def finish(self):
        self.stop = True
        for t in self.threads:
            t.join(30)
        assert not self.wrong, self.wrong[:5]
        return self.notes


def test_after_the_acknowledgement_nothing_reaches_the_old_version(pair):
    """2,000 requests and more race with 200 switches."""
    g, one, two = pair
    asking = Asking(g, stream_every=2)
    acks = []  # (ns when the table was sent, when its acknowledgement was in our hands, version)
    serving = "v1"
    while len(acks) < 200 or len(asking.notes) < 2000:
        serving = "v2" if serving == "v1" else "v1"
        sent = time.monotonic_ns()
        ack = g.publish(table(one, two, serving))
        acks.append((sent, time.monotonic_ns(), f"m@{serving}"))
        assert sent <= ack["acked_ns"] <= acks[-1][1]
        assert not asking.wrong, asking.wrong[:3]
        time.sleep(0.003)
    notes = asking.finish()

    # What began after an acknowledgement and ended before the next table was sent.
    checked = wrong = 0
    for (_, at, version), (sent, _, _) in zip(acks, acks[1:]):
        for began, ended, who in notes:
            if at < began and ended < sent:
                checked += 1
                wrong += who != version
    assert wrong == 0, f"{wrong} of {checked} on the old version after the acknowledgement"
    assert checked > 100
    assert {n[2] for n in notes} == {"m@v1", "m@v2"}
    g.settled()
    for u in (one, two):
        c = g.replica(u)
        assert (c["failed"], c["truncated"], c["cancelled"]) == (0, 0, 0)
    assert g.replica(one)["finished"] + g.replica(two)["finished"] == len(notes)


def test_the_last_start_on_the_old_version_is_before_the_acknowledgement(pair):
    g, one, two = pair
    asking = Asking(g, threads=4)
    serving = "v1"
    for i in range(30):
        old = one if serving == "v1" else two
        serving = "v2" if serving == "v1" else "v1"
        ack = g.publish(table(one, two, serving))
        seen = g.replica(old)
        wait_until(lambda: g.replica(two if serving == "v2" else one)["last_start_ns"]
                   > ack["acked_ns"], 10)
        after = g.replica(old)
        assert after["last_start_ns"] <= ack["acked_ns"]
        assert after["started"] == seen["started"]
    asking.finish()


def test_streams_that_run_at_a_switch_end_on_their_version(gateway, upstream):
    go = threading.Event()

    def script(name):
        def run(request, conn):
            conn.send(event_stream() + chunked(f"data: {name}\n\n".encode(), last=False))
            assert go.wait(30)
            conn.send(chunked(f"data: {name}\n\n".encode(), b"data: [DONE]\n\n"))
        return run
    one, two = upstream(script("one"), name="one"), upstream(script("two"), name="two")
    g = gateway(models=table(one, two, "v1"))
    wires = [g.wire().send(post(chat(stream=True))) for _ in range(20)]
    heads = [w.head() for w in wires]
    g.publish(table(one, two, "v2"))
    assert g.replica(one)["in_flight"] == 20
    late = [g.wire().send(post(chat(stream=True))) for _ in range(5)]
    late_heads = [w.head() for w in late]
    go.set()
    for w, a in zip(wires + late, heads + late_heads):
        w.body(a)
        assert a.complete and a.events()[-1] == "[DONE]"
    assert all(a.events() == ["one", "one", "[DONE]"] for a in heads)
    assert all(a.events() == ["two", "two", "[DONE]"] for a in late_heads)
    assert all(a.get("x-segue-version") == "m@v2" for a in late_heads)


def test_a_kept_client_connection_sees_the_switch_at_its_next_request(pair):
    g, one, two = pair
    with g.wire() as w:
        for i in range(50):
            serving = "v2" if i % 2 else "v1"
            g.publish(table(one, two, serving))
            a = w.ask(post(chat()))
            assert a.get("x-segue-version") == f"m@{serving}"


def test_a_pinned_version_goes_on_after_the_switch(pair):
    g, one, two = pair
    g.publish(table(one, two, "v2"))
    a = g.ask(post(chat(model="m@v1")))
    assert a.get("x-segue-version") == "m@v1"
    g.settled()
    assert (g.replica(one)["pinned"], g.replica(one)["started"]) == (1, 0)
    assert g.replica(one)["last_start_ns"] == 0


def test_tables_that_make_no_sense_are_refused_and_the_old_one_stays(pair):
    g, one, two = pair
    good = g.table()
    g.epoch -= 1

    def without(key):
        return {k: v for k, v in good.items() if k != key}

    def replica_with(**more):
        t = json.loads(json.dumps(good))
        t["models"][0]["versions"][0]["replicas"][0].update(more)
        return t
    bad = {
        "no epoch": without("epoch"), "no limits": without("limits"),
        "no timeouts": without("timeouts"), "an old epoch": {**good, "epoch": 1},
        "epoch is text": {**good, "epoch": "7"},
        "negative limit": {**good, "limits": {**good["limits"], "body_bytes": -1}},
        "slot beyond the end": replica_with(slot=4096), "negative slot": replica_with(slot=-1),
        "no port": replica_with(address="127.0.0.1"),
        "port 0": replica_with(address="127.0.0.1:0"),
        "port too high": replica_with(address="127.0.0.1:65536"),
        "host name": replica_with(address="example.org:80"),
        "path too long": replica_with(address="unix:/" + "x" * 200),
        "no address": replica_with(address=None),
        "model is no object": {**good, "models": [1]},
    }
    for name, t in bad.items():
        with pytest.raises(Refused):
            g.send(t)
            g.acked(g.epoch + 1)
            print(name)
        assert g.ask(post(chat(name))).status == 200, name
    g.send(b'{"type": "table", "epoch": ')  # no JSON
    assert g.ask(post(chat("after no JSON"))).status == 200
    g.publish(table(one, two, "v2"))
    assert g.ask(post(chat())).get("x-segue-version") == "m@v2"


def test_many_tables_at_once_are_acknowledged_by_the_newest(pair):
    g, one, two = pair
    for i in range(100):
        g.send(g.table(table(one, two, "v2" if i % 2 else "v1")))
    assert g.acked(g.epoch)["epoch"] == g.epoch
    assert g.ask(post(chat())).get("x-segue-version") == "m@v2"


def test_large_table(gateway, upstream):
    """16 versions of 500 models: 2 MB of JSON; a switch goes on being quick."""
    u = upstream()
    models = [model(f"model-{i}", {f"v{k}": (int(k == 0), [u]) for k in range(4)},
                    aliases=[f"a{i}", f"b{i}"]) for i in range(500)]
    g = gateway(models=models)
    assert g.ask(post(chat(model="b499"))).status == 200
    assert len(g.ask(head("GET", "/v1/models")).json()["data"]) == 500
    assert g.publish()["epoch"] == 2


def test_requests_in_flight_keep_their_table_alive(gateway, upstream):
    """The table that a request was dispatched by is freed under nobody."""
    go = threading.Event()

    def script(request, conn):
        assert go.wait(30)
        conn.send(answer({"ok": 1}))
    u = upstream(script)
    g = gateway(models=model(versions={"v1": (1, [u])}))
    wires = [g.wire().send(post(chat())) for _ in range(8)]
    wait_until(lambda: g.replica(u)["in_flight"] == 8)
    for i in range(20):
        g.publish(model(f"other{i}", {"v1": (1, [u])}))
    go.set()
    for w in wires:
        a = w.answer()
        assert a.status == 200 and a.get("x-segue-version") == "m@v1"
