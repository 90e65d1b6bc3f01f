"""API keys at the gateway: who comes in, who is told why not, and what an engine never sees."""
import hashlib
import threading

import pytest

from harness import SLOW, Refused, chat, head, model, post, wait_until

pytestmark = pytest.mark.gateway

CI = "sk-segue-" + "a1" * 32
WEB = "sk-segue-" + "b2" * 32
GONE = "sk-segue-" + "c3" * 32


def key(name, text, models=(), concurrency=0, rate=0):
    return {"name": name, "sha256": hashlib.sha256(text.encode()).hexdigest(),
            "models": list(models), "concurrency": concurrency, "rate": rate}


def bearer(text):
    return f"Authorization: Bearer {text}"


@pytest.fixture
def guarded(gateway, upstream):
    """guarded([keys], required=True, script=None, **gateway's): gateway and engine."""
    def make(keys, required=True, script=None, **more):
        one = upstream(script, name="one")
        models = [model("m", {"v1": (1, [one])}), model("other", {"v1": (1, [one])})]
        g = gateway(extra={"keys": keys, "keys_required": required}, models=models,
                    **{"workers": 2, **more})
        return g, one
    return make


# name: (header lines, status, code)
SHOWN = {
    "nothing": ([], 401, "invalid_api_key"),
    "bearer": ([bearer(CI)], 200, None),
    "bearer, any case": ([f"authorization:   bEaReR   {CI}  "], 200, None),
    "x-api-key": ([f"X-Api-Key: {CI}"], 200, None),
    "another's key beside it": (["Authorization: Bearer sk-engine", f"x-api-key: {CI}"], 200, None),
    "unknown": ([bearer(GONE)], 401, "invalid_api_key"),
    "another's": ([bearer("sk-engine")], 401, "invalid_api_key"),
    "one character more": ([bearer(CI + "0")], 401, "invalid_api_key"),
    "one character less": ([bearer(CI[:-1])], 401, "invalid_api_key"),
    "beginning alone": ([bearer("sk-segue-")], 401, "invalid_api_key"),
    "very long": ([bearer("sk-segue-" + "a" * 8000)], 401, "invalid_api_key"),
    "no scheme": ([f"Authorization: {CI}"], 401, "invalid_api_key"),
    "another scheme": ([f"Authorization: Basic {CI}"], 401, "invalid_api_key"),
    "empty": (["Authorization: Bearer "], 401, "invalid_api_key"),
    "the hash itself": ([bearer(hashlib.sha256(CI.encode()).hexdigest())], 401, "invalid_api_key"),
}


def test_what_is_shown_decides(guarded):
    g, one = guarded([key("ci", CI), key("web", WEB)])
    wrong = []
    with g.wire() as w:
        for name, (lines, status, code) in SHOWN.items():
            before = len(one.requests)
            a = w.ask(post(chat(), *lines))
            asked = len(one.requests) - before
            if a.status != status or asked != (status == 200):
                wrong.append(f"{name}: {a.status}, asked {asked} times: {a.body[:200]}")
            elif status != 200 and (a.error["code"] != code or
                                    a.get("www-authenticate") != "Bearer" or
                                    "segue key add" not in a.error["message"]):
                wrong.append(f"{name}: {a.fields} {a.body[:200]}")
    assert not wrong, "\n".join(wrong)


def test_which_paths_need_a_key(guarded):
    g, _ = guarded([key("ci", CI)])
    with g.wire() as w:
        for path in ("/", "/health", "/readiness", "/liveness", "/version", "/web/app.js"):
            assert w.ask(head("GET", path), "GET").status == 200, path
        for path in ("/v1/models", "/v1/models/m", "/v1/nothing"):
            assert w.ask(head("GET", path), "GET").status == 401, path
        assert w.ask(head("GET", "/v1/models", bearer(CI)), "GET").status == 200
        assert w.ask(head("GET", "/v1/models/m", bearer(CI)), "GET").status == 200
        assert w.ask(head("GET", "/v1/nothing", bearer(CI)), "GET").status == 404
        assert w.ask(post(b"not json")).status == 401


def test_a_body_is_not_taken_from_everybody(guarded):
    g, one = guarded([key("ci", CI)])
    begun = head("POST", "/v1/chat/completions", "Content-Length: 1000000")
    with g.wire() as w:
        a = w.ask(begun)
        assert a.status == 401 and a.get("connection") == "close"
    with g.wire() as w:  # nor is it asked for
        a = w.ask(head("POST", "/v1/chat/completions", "Content-Length: 1000", "Expect: 100-continue"))
        assert a.status == 401 and a.interim == []
    body = b'{"model":"m","x":"' + b"y" * 200000 + b'"}'
    with g.wire() as w:  # with a key it is, in parts too, and the connection is kept
        whole = post(body, bearer(CI))
        w.send(whole[:300]).send(whole[300:])
        assert w.answer().status == 200
        assert w.ask(post(chat(), bearer(CI))).status == 200
    assert len(one.requests) == 2 and one.requests[0].body.endswith(b"yyy\"}")


def test_an_engine_never_sees_a_key_of_ours(guarded):
    g, one = guarded([key("ci", CI)])
    assert g.ask(post(chat(), bearer(CI), "X-Api-Key: sk-engine")).status == 200
    assert g.ask(post(chat(), "Authorization: Bearer sk-engine", f"X-Api-Key: {CI}")).status == 200
    first, second = one.requests
    assert first.get("authorization") is None and first.get("x-api-key") == "sk-engine"
    assert second.get("x-api-key") is None and second.get("authorization") == "Bearer sk-engine"


def test_keys_that_are_not_required(guarded):
    g, one = guarded([key("ci", CI, rate=2)], required=False)
    assert g.ask(post(chat())).status == 200
    assert g.ask(post(chat(), bearer("sk-engine"))).status == 200
    assert one.requests[-1].get("authorization") == "Bearer sk-engine"
    # A key of ours is one all the same: it is not passed on, and its limits hold.
    assert g.ask(post(chat(), bearer(CI))).status == 200
    assert one.requests[-1].get("authorization") is None
    g.ask(post(chat(), bearer(CI)))
    assert g.ask(post(chat(), bearer(CI))).status == 429
    assert g.ask(post(chat())).status == 200


def test_no_keys_at_all(guarded):
    g, one = guarded([], required=False)
    assert g.ask(post(chat(), bearer(GONE))).status == 200
    assert one.requests[-1].get("authorization") == f"Bearer {GONE}"
    g.extra = {"keys": [], "keys_required": True}
    g.publish()
    assert g.ask(post(chat(), bearer(GONE))).status == 401


def test_a_key_for_some_models(guarded):
    g, one = guarded([key("ci", CI, models=["other"])])
    with g.wire() as w:
        a = w.ask(post(chat(model="m"), bearer(CI)))
        assert a.status == 403 and a.error["code"] == "model_not_allowed"
        assert "'ci'" in a.error["message"] and "'m'" in a.error["message"]
        assert w.ask(post(chat(model="m@v1"), bearer(CI))).status == 403
        assert w.ask(post(chat(model="other"), bearer(CI))).status == 200
        assert w.ask(post(chat(model="other@v1"), bearer(CI))).status == 200
        assert w.ask(post(chat(model="nothing"), bearer(CI))).status == 404
    assert len(one.requests) == 2


def test_rate_over_all_workers_and_tables(guarded):
    g, one = guarded([key("ci", CI, rate=5), key("web", WEB)], workers=4)
    answers = [g.ask(post(chat(), bearer(CI))) for _ in range(20)]  # each on some worker
    good = [a for a in answers if a.status == 200]
    bad = [a for a in answers if a.status != 200]
    assert len(good) >= 5 and bad, "a burst of one second's requests, then no more"
    assert {a.status for a in bad} == {429}
    assert all(a.error["code"] == "rate_limit_exceeded" for a in bad)
    assert all(a.get("retry-after") == "1" for a in bad)
    assert len(one.requests) == len(good)
    assert g.ask(post(chat(), bearer(WEB))).status == 200, "another's rate is its own"
    # A new table gives nobody a fresh bucket: 200 tables, far less than 200 x 5 requests.
    before = len(one.requests)
    for _ in range(50):
        g.publish()
        for _ in range(3):
            g.ask(post(chat(), bearer(CI)))
    seconds = 30 * SLOW
    assert len(one.requests) - before <= 5 * seconds

    wait_until(lambda: g.ask(post(chat(), bearer(CI))).status == 200, 5, "a token has come back")


def test_concurrency_over_all_workers(guarded):
    release = threading.Event()

    def wait(request, conn):
        release.wait(20 * SLOW)
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    g, one = guarded([key("ci", CI, concurrency=3), key("web", WEB)], script=wait, workers=4)
    wires = [g.wire() for _ in range(4)]
    for w in wires[:3]:
        w.send(post(chat(), bearer(CI)))
    wait_until(lambda: len(one.requests) == 3, 10 * SLOW)
    a = wires[3].ask(post(chat(), bearer(CI)))
    assert a.status == 429 and a.error["code"] == "concurrency_limit_exceeded"
    assert a.get("retry-after") == "1"
    g.publish()  # in flight stays in flight
    assert wires[3].ask(post(chat(), bearer(CI))).status == 429
    wires[0].close()  # a client that leaves makes room
    wait_until(lambda: g.counters.all()["connections"] == 3, 10 * SLOW)
    wires[3].send(post(chat(), bearer(CI)))
    wait_until(lambda: len(one.requests) == 4, 10 * SLOW)
    release.set()
    assert [w.answer().status for w in wires[1:]] == [200] * 3
    assert [w.ask(post(chat(), bearer(CI))).status for w in wires[1:]] == [200] * 3


def test_revoked_and_added(guarded):
    release = threading.Event()

    def wait(request, conn):
        if b"slow" in request.body:
            release.wait(20 * SLOW)
        conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    g, one = guarded([key("ci", CI, concurrency=5)], script=wait)
    with g.wire() as w, g.wire() as other:
        w.send(post(chat("slow"), bearer(CI)))
        wait_until(lambda: len(one.requests) == 1, 10 * SLOW)
        g.extra = {"keys": [key("web", WEB)], "keys_required": True}
        g.publish()
        assert other.ask(post(chat(), bearer(CI))).status == 401, "from the acknowledgement on"
        assert other.ask(post(chat(), bearer(WEB))).status == 200
        release.set()
        assert w.answer().status == 200, "what was under way is finished"
        assert w.ask(post(chat(), bearer(CI))).status == 401


def test_a_change_that_names_no_keys_leaves_them(guarded):
    g, _ = guarded([key("ci", CI)])
    table = g.table()
    table.update(base=table["epoch"] - 1, models=[])
    del table["keys"], table["keys_required"]
    g.send(table)
    g.acked(g.epoch)
    assert g.ask(post(chat())).status == 401
    assert g.ask(post(chat(), bearer(CI))).status == 200


@pytest.mark.parametrize("bad", [
    {"sha256": "00"}, {"sha256": "g" * 64}, {"sha256": None}, {"name": None}, {"rate": -1},
    {"concurrency": -1}, {"rate": 10 ** 9}], ids=str)
def test_a_key_that_is_none_refuses_the_table(guarded, bad):
    g, _ = guarded([key("ci", CI)])
    g.extra = {"keys": [{**key("ci", CI), **bad}], "keys_required": True}
    with pytest.raises(Refused):
        g.publish()
    assert g.ask(post(chat(), bearer(CI))).status == 200, "the old table stays"


def test_many_keys(guarded):
    texts = [f"sk-segue-{i:064x}" for i in range(3000)]
    g, one = guarded([key(f"k{i}", t) for i, t in enumerate(texts)])
    with g.wire() as w:
        for t in texts[::100]:
            assert w.ask(post(chat(), bearer(t))).status == 200
        assert w.ask(post(chat(), bearer(f"sk-segue-{3000:064x}"))).status == 401
