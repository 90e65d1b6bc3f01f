"""Which fields reach the engine, and which reach the client."""
import re

import pytest

from harness import answer, chat, head, model, post

pytestmark = pytest.mark.gateway


@pytest.fixture
def shared(gateway, upstream):
    u = upstream()
    g = gateway(workers=1, models=model(versions={"v1": (1, [u])}))
    return g, u


def seen(shared, *fields, **more):
    """What the engine gets for a request with these fields."""
    g, u = shared
    a = g.ask(post(chat("h"), *fields, **more))
    assert a.status == 200, a
    return u.requests[-1]


def test_host_is_kept(shared):
    assert seen(shared, host="llm.example:8443").get("host") == "llm.example:8443"


def test_host_is_there_for_http_1_0(shared):
    assert seen(shared, host=None, version="HTTP/1.0").get("host")


def test_the_client_s_address_is_told_and_cannot_be_forged(shared):
    r = seen(shared, "X-Real-IP: 6.6.6.6", "X-Forwarded-Proto: https")
    assert r.get("x-real-ip") == "127.0.0.1" and r.get("x-forwarded-proto") == "http"


def test_x_forwarded_for_is_appended_to(shared):
    assert seen(shared).get("x-forwarded-for") == "127.0.0.1"
    assert seen(shared, "X-Forwarded-For: 1.1.1.1, 2.2.2.2").get("x-forwarded-for") == \
        "1.1.1.1, 2.2.2.2, 127.0.0.1"
    r = seen(shared, "X-Forwarded-For: 1.1.1.1", "x-forwarded-for: 2.2.2.2")
    assert r.get("x-forwarded-for") == "1.1.1.1, 2.2.2.2, 127.0.0.1"


def test_request_id_is_kept_or_made(shared):
    g, u = shared
    a = g.ask(post(chat("x"), "X-Request-Id: client-7"))
    assert a.get("x-request-id") == "client-7" and u.requests[-1].get("x-request-id") == "client-7"
    ids = set()
    for _ in range(20):
        a = g.ask(post(chat("x")))
        ids.add(a.get("x-request-id"))
        assert u.requests[-1].get("x-request-id") == a.get("x-request-id")
    assert len(ids) == 20 and all(re.fullmatch(r"[0-9a-f]{32}", i) for i in ids)


@pytest.mark.parametrize("bad", ["a b", 'a"b', "a\\b", "\xe9", "x" * 129, ""])
def test_request_ids_that_cannot_stand_in_a_log_are_replaced(shared, bad):
    g, u = shared
    a = g.ask(post(chat("x"), f"X-Request-Id: {bad}"))
    assert re.fullmatch(r"[0-9a-f]{32}", a.get("x-request-id"))
    assert u.requests[-1].get("x-request-id") == a.get("x-request-id")


def test_hop_by_hop_fields_are_dropped(shared):
    r = seen(shared, "Connection: keep-alive, X-Secret , x-other", "Keep-Alive: timeout=5",
             "Proxy-Connection: keep-alive", "TE: trailers", "Trailer: X", "Upgrade: h2c",
             "X-Secret: 1", "X-Other: 2", "X-Stays: 3")
    names = {k.lower() for k, _ in r.fields}
    assert not names & {"keep-alive", "proxy-connection", "te", "trailer", "upgrade", "x-secret",
                        "x-other"}
    assert r.get("x-stays") == "3" and "connection" not in names


def test_connection_cannot_strip_fields_that_matter(shared):
    r = seen(shared, "Connection: Content-Type, Authorization, X-Forwarded-For, Host",
             "Authorization: Bearer k", "X-Forwarded-For: 1.1.1.1")
    assert r.get("authorization") == "Bearer k" and r.get("content-type") == "application/json"
    assert r.get("x-forwarded-for") == "1.1.1.1, 127.0.0.1" and r.get("host") == "test"


def test_all_else_passes_in_order_and_byte_for_byte(shared):
    fields = ["Accept: */*", "X-Zwei: \xe4\xf6 \t x", "x-zwei: again", "Cookie: a=b; c=d",
              "User-Agent: tests", "OpenAI-Beta: x=1", "X-Empty:"]
    r = seen(shared, *fields)
    got = [(k, v) for k, v in r.fields if k.lower() in {f.split(":")[0].lower() for f in fields}]
    assert got == [tuple(p.strip() for p in f.split(":", 1)) for f in fields]


def test_the_version_cannot_be_spoofed_by_client_or_engine(gateway, upstream):
    u = upstream(lambda r, c: c.send(answer({}, 200, "X-Segue-Version: m@evil")))
    g = gateway(models=model(versions={"v1": (1, [u])}))
    a = g.ask(post(chat(), "X-Segue-Version: m@client"))
    assert a.get("x-segue-version") == "m@v1"
    assert u.requests[0].get("x-segue-version") is None


def test_hop_by_hop_fields_of_the_answer_are_dropped(gateway, upstream):
    u = upstream(lambda r, c: c.send(answer(
        {}, 200, "Connection: keep-alive, X-Inner", "Keep-Alive: timeout=5", "X-Inner: 1",
        "Upgrade: h2c", "Proxy-Connection: x", "X-Stays: 2", "Server: e", "Set-Cookie: a=b",
        "Set-Cookie: c=d")))
    g = gateway(models=model(versions={"v1": (1, [u])}))
    a = g.ask(post(chat()))
    names = [k.lower() for k, _ in a.fields]
    assert not set(names) & {"connection", "keep-alive", "x-inner", "upgrade", "proxy-connection"}
    assert a.get("x-stays") == "2" and a.get("server") == "e" and names.count("set-cookie") == 2


def test_own_answers_have_date_and_id_free_pages(shared):
    g, _ = shared
    a = g.ask(head("GET", "/v1/models"))
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", a.get("date"))
    assert a.get("content-type") == "application/json" and a.get("content-length")
