"""Which engine a request's `model` leads to, and what becomes of the body's other bytes."""
import json

import pytest

from harness import chat, head, model, post, replica

pytestmark = pytest.mark.gateway


@pytest.fixture
def shared(gateway, upstream):
    """m has v1 (all new requests) and v2 (pinned ones); other has v1."""
    one, two, other = upstream(name="one"), upstream(name="two"), upstream(name="other")
    g = gateway(workers=1, models=[
        model("m", {"v1": (1, [replica(one, serve_as="engine-name")]), "v2": (0, [two])},
              aliases=["alias", "org/M-1.8B", "übersetzer"]),
        model("other", {"v1": (1, [other])})])
    return g, {"one": one, "two": two, "other": other}


# name: (body, engine, body that the engine gets)
ROUTES = {
    "public name": ('{"model": "m", "x": 1}', "one", '{"model": "engine-name", "x": 1}'),
    "alias": ('{"model": "alias"}', "one", '{"model": "engine-name"}'),
    "alias with a slash": ('{"model": "org/M-1.8B"}', "one", '{"model": "engine-name"}'),
    "alias beyond ASCII": ('{"model": "übersetzer"}', "one", '{"model": "engine-name"}'),
    "alias with escapes": ('{"model": "\\u00fcbersetzer"}', "one", '{"model": "engine-name"}'),
    "the engine's own name": ('{"model": "engine-name"}', "one", '{"model": "engine-name"}'),
    "pinned to the serving version": ('{"model": "m@v1"}', "one", '{"model": "engine-name"}'),
    "pinned to the other version": ('{"model": "m@v2"}', "two", '{"model": "m@v2"}'),
    "another model": ('{"model": "other"}', "other", '{"model": "other@v1"}'),
    "escaped key": ('{"\\u006dodel": "m", "x": 1}', "one",
                    '{"\\u006dodel": "engine-name", "x": 1}'),
    "escaped value": ('{"model": "\\u006d"}', "one", '{"model": "engine-name"}'),
    "escaped slash": ('{"model": "org\\/M-1.8B"}', "one", '{"model": "engine-name"}'),
    "last member": ('{"x": [1, {"y": 2}], "model": "m"}', "one",
                    '{"x": [1, {"y": 2}], "model": "engine-name"}'),
    "odd white space": (' \t\r\n{ \n"model"\t:\r\n"m" } \n', "one",
                        ' \t\r\n{ \n"model"\t:\r\n"engine-name" } \n'),
    "model inside other members": ('{"a": {"model": "other"}, "b": ["model", {"model": 1}], '
                                   '"c": "\\"model\\": \\"other\\"", "model": "m"}', "one",
                                   '{"a": {"model": "other"}, "b": ["model", {"model": 1}], '
                                   '"c": "\\"model\\": \\"other\\"", "model": "engine-name"}'),
    "other members twice": ('{"x": 1, "x": 2, "model": "m"}', "one",
                            '{"x": 1, "x": 2, "model": "engine-name"}'),
    "big and odd numbers": ('{"n": 1e400, "m": -0.0, "k": 123456789012345678901234567890, '
                            '"model": "m"}', "one",
                            '{"n": 1e400, "m": -0.0, "k": 123456789012345678901234567890, '
                            '"model": "engine-name"}'),
    "deep nesting": ('{"x": ' + "[" * 200 + "]" * 200 + ', "model": "m"}', "one",
                     '{"x": ' + "[" * 200 + "]" * 200 + ', "model": "engine-name"}'),
    "all of Unicode": ('{"x": "\\u0000\\ud83c\\udfb5 🎵 \u2028 語", "model": "m"}', "one",
                       '{"x": "\\u0000\\ud83c\\udfb5 🎵 \u2028 語", "model": "engine-name"}'),
}


def test_model_resolution_and_splice(shared):
    g, engines = shared
    wrong = []
    with g.wire() as w:
        for name, (body, engine, want) in ROUTES.items():
            before = {k: len(e.requests) for k, e in engines.items()}
            w.send(post(body))
            a = w.answer()
            asked = [k for k, e in engines.items() if len(e.requests) > before[k]]
            if a.status != 200 or asked != [engine]:
                wrong.append(f"{name}: {a.status}, asked {asked}: {a.body[:200]}")
            elif engines[engine].requests[-1].body != want.encode():
                wrong.append(f"{name}: {engines[engine].requests[-1].body!r}, expected {want!r}")
    assert not wrong, "\n".join(wrong)


# With one model its name may be left out.
ABSENT = {
    "absent": ('{"x": 1}', '{"model":"m@v1","x": 1}'),
    "empty object": ("{}", '{"model":"m@v1"}'),
    "empty object with space": ("{ }", '{"model":"m@v1" }'),
    "null": ('{"x": 1, "model": null}', '{"x": 1, "model": "m@v1"}'),
    "empty": ('{"model": ""}', '{"model": "m@v1"}'),
    "only nested": ('{"a": {"model": "x"}}', '{"model":"m@v1","a": {"model": "x"}}'),
}


@pytest.mark.parametrize("name", ABSENT)
def test_an_absent_model_is_the_only_one(gateway, upstream, name):
    body, want = ABSENT[name]
    u = upstream()
    g = gateway(models=model(versions={"v1": (1, [u])}))
    assert g.ask(post(body)).status == 200
    assert json.loads(u.requests[0].body)["model"] == "m@v1"
    assert u.requests[0].body == want.encode()
    assert u.requests[0].get("content-length") == str(len(want))


def test_an_absent_model_among_several_is_refused_and_they_are_listed(shared):
    g, engines = shared
    for body in ("{}", '{"model": null}', '{"x": 1}'):
        a = g.ask(post(body))
        assert a.status == 404 and a.error["code"] == "model_not_found"
        assert "m, other" in a.error["message"]
    assert not any(e.requests for e in engines.values())


def test_an_unknown_model_is_refused_and_the_known_ones_are_listed(shared):
    g, _ = shared
    for name in ("x", "m@v3", "m@", "@v1", "M", "m ", "alias@v1"):
        a = g.ask(post(chat(model=name)))
        assert a.status == 404, name
        assert name in a.error["message"] and "m, other" in a.error["message"]


def test_model_list(shared):
    g, _ = shared
    value = g.ask(head("GET", "/v1/models")).json()
    assert value["object"] == "list" and [m["id"] for m in value["data"]] == ["m", "other"]
    first = value["data"][0]
    assert (first["object"], first["created"], first["owned_by"]) == ("model", 1700000000, "segue")
    assert [(v["id"], v["share"], v["ready"]) for v in first["versions"]] == [
        ("m@v1", 1, True), ("m@v2", 0, True)]


def test_one_model(shared):
    g, _ = shared
    for name, want in (("m", "m"), ("alias", "m"), ("m@v2", "m@v2"), ("org/M-1.8B", "m")):
        a = g.ask(head("GET", f"/v1/models/{name}"))
        assert (a.status, a.json()["id"], a.json()["object"]) == (200, want, "model"), name
    assert g.ask(head("GET", "/v1/models/none")).status == 404


def test_health_and_readiness(gateway, upstream):
    u = upstream()
    g = gateway(models=model(versions={"v1": (1, [replica(u, ready=False)])}))
    assert g.ask(head("GET", "/health")).status == 200
    a = g.ask(head("GET", "/readiness"))
    assert a.status == 503 and "'m'" in a.error["message"] and a.get("retry-after")
    g.publish(model(versions={"v1": (1, [u])}))
    assert g.ask(head("GET", "/readiness")).status == 200
    assert g.ask(head("GET", "/liveness")).status == 200
    assert g.ask(head("GET", "/version")).json()["version"]


def test_shares_follow_the_weights(gateway, upstream):
    one, two = upstream(name="one"), upstream(name="two")
    g = gateway(models=model(versions={"v1": (3, [one]), "v2": (1, [two])}))
    with g.wire() as w:
        for i in range(400):  # a conversation stays where it began, so each is another
            assert w.ask(post(chat(f"question {i}"))).status == 200
    assert 40 < len(two.requests) < 160 and len(one.requests) + len(two.requests) == 400


def test_replicas_share_the_work(gateway, upstream):
    us = [upstream(name=f"r{i}") for i in range(3)]
    g = gateway(models=model(versions={"v1": (1, us)}))
    with g.wire() as w:
        for _ in range(150):
            assert w.ask(post(chat())).status == 200
    assert all(len(u.requests) > 15 for u in us), [len(u.requests) for u in us]


def test_a_thousand_models(gateway, upstream):
    u = upstream()
    g = gateway(models=[model(f"model-{i}", {"v1": (1, [replica(u, slot=i)])})
                        for i in range(1000)])
    with g.wire() as w:
        for i in (0, 1, 499, 999):
            assert w.ask(post(chat(model=f"model-{i}"))).status == 200
    assert u.models() == [f"model-{i}@v1" for i in (0, 1, 499, 999)]
