"""Versions that share the requests: who gets which; the names of roles; pages of other origins."""
import pytest

from harness import chat, head, model, post

pytestmark = pytest.mark.gateway


@pytest.fixture
def two(gateway, upstream):
    """A gateway in front of v1 and v2, one engine each."""
    return gateway(workers=2, models=model(versions={"v1": (1, [upstream()]),
                                                     "v2": (0, [upstream()])}))


def version(g, body, *fields):
    a = g.ask(post(body, *fields))
    assert a.status == 200, a
    return a.get("x-segue-version")


def follow(g, ask, steps=(0, 1, 5, 25, 60, 100)):
    """The versions that each of 60 conversations sees while v2's share grows."""
    seen = {}
    for share in steps:
        g.weights(v1=100 - share, v2=share)
        for who in range(60):
            seen.setdefault(who, []).append(ask(who))
    return seen


@pytest.mark.parametrize("known_by", ["user", "first message", "header", "prompt"])
def test_a_growing_share_moves_a_conversation_once(two, known_by):
    g = two
    if known_by == "header":
        g.extra["sticky_header"] = "X-Session-Id"

    def ask(who):
        if known_by == "user":
            return version(g, chat("the same for all", user=f"user {who}"))
        if known_by == "header":
            return version(g, chat("the same for all", user="all"), f"x-session-id: s{who}")
        if known_by == "prompt":
            return version(g, {"model": "m", "prompt": f"text {who}"})
        body = chat(f"question {who}")
        body["messages"] += [{"role": "assistant", "content": "so far"}]
        return version(g, body)

    for versions in follow(g, ask).values():
        assert versions[0] == "m@v1" and versions[-1] == "m@v2"
        assert sorted(versions) == versions, versions


def test_a_share_is_what_it_says(two):
    g = two
    g.weights(v1=75, v2=25)
    n = sum(version(g, chat(user=f"u{i}")) == "m@v2" for i in range(400))
    assert 60 <= n <= 140, n  # 100 expected, 4.6 standard deviations


def test_names_of_roles(two):
    g = two
    assert version(g, chat(model="m@champion")) == version(g, chat(model="m@stable")) == "m@v1"
    assert version(g, chat(model="m@challenger")) == version(g, chat(model="m@canary")) == "m@v2"
    g.weights(v2=1)
    assert version(g, chat(model="m@stable")) == "m@v2"
    assert version(g, chat(model="m@canary")) == "m@v1"


def test_no_challenger_is_an_unknown_model(gateway, upstream):
    g = gateway(models=model(versions={"v1": (1, [upstream()])}))
    a = g.ask(post(chat(model="m@canary")))
    assert a.status == 404 and "m@canary" in a.error["message"], a


ORIGIN = "https://app.example"
PREFLIGHT = ("Access-Control-Request-Method: POST",
             "Access-Control-Request-Headers: authorization,content-type,x-stainless-os")


def cors(gateway, upstream, *origins):
    g = gateway(models=None)
    if origins:
        g.extra["cors"] = list(origins)
    u = upstream()
    g.publish(model(versions={"v1": (1, [u])}))
    return g, u


def preflight(g, origin):
    return g.ask(head("OPTIONS", "/v1/chat/completions", f"Origin: {origin}", *PREFLIGHT),
                 method="OPTIONS")


def test_without_cors_nothing_is_allowed(gateway, upstream):
    g, _ = cors(gateway, upstream)
    assert preflight(g, ORIGIN).status == 405
    a = g.ask(post(chat(), f"Origin: {ORIGIN}"))
    assert a.status == 200 and a.get("access-control-allow-origin") is None


@pytest.mark.parametrize("listed", [ORIGIN, "*"])
def test_an_allowed_origin(gateway, upstream, listed):
    g, u = cors(gateway, upstream, "https://other.example", listed)
    a = preflight(g, ORIGIN)
    assert a.status == 204 and a.get("access-control-allow-origin") == ORIGIN
    assert a.get("access-control-allow-headers") == "authorization,content-type,x-stainless-os"
    assert "POST" in a.get("access-control-allow-methods") and not u.requests
    for a in (g.ask(post(chat(), f"Origin: {ORIGIN}")),
              g.ask(post(chat(model="?"), f"Origin: {ORIGIN}")),
              g.ask(head("GET", "/v1/models", f"Origin: {ORIGIN}"), method="GET")):
        assert a.get("access-control-allow-origin") == ORIGIN, a
        assert a.get("vary") == "Origin"
        assert "x-segue-version" in a.get("access-control-expose-headers").lower()


def test_an_origin_that_is_not_listed(gateway, upstream):
    g, _ = cors(gateway, upstream, "https://other.example")
    assert preflight(g, ORIGIN).status == 405
    for origin in (ORIGIN, "https://other.example.evil", "null"):
        a = g.ask(post(chat(), f"Origin: {origin}"))
        assert a.status == 200 and a.get("access-control-allow-origin") is None


def test_the_permission_ends_with_its_request(gateway, upstream):
    """A kept connection's next request, without an Origin, is not a browser's."""
    g, _ = cors(gateway, upstream, ORIGIN)
    with g.wire() as w:
        assert w.ask(post(chat(), f"Origin: {ORIGIN}")).get("vary") == "Origin"
        assert w.ask(post(chat())).get("vary") is None
