"""How requests may be framed, and what the engine then gets: always one plain POST with a length."""
import json
import random
import threading

import pytest

from harness import Wire, chat, head, model, post, wait_until

pytestmark = pytest.mark.gateway


@pytest.fixture
def shared(gateway, upstream):
    u = upstream()
    g = gateway(workers=1, models=model(versions={"v1": (1, [u])}))
    return g, u


def chunks(body, sizes, extension=b"", trailer=b""):
    out, at = b"", 0
    for n in sizes:
        piece = body[at:at + n]
        at += n
        if piece:
            out += b"%x%s\r\n%s\r\n" % (len(piece), extension, piece)
    if at < len(body):
        out += b"%x\r\n%s\r\n" % (len(body) - at, body[at:])
    return out + b"0\r\n" + trailer + b"\r\n"


def chunked_head(*fields, target="/v1/chat/completions"):
    return head("POST", target, "Content-Type: application/json", "Transfer-Encoding: chunked",
                *fields)


def text_of(answer):
    assert answer.status == 200 and answer.complete, answer
    return answer.json()["choices"][0]["message"]["content"]


def test_dripping_bytes_one_segment_each(shared):
    g, u = shared
    with g.wire() as w:
        for i in range(3):
            w.drip(post(chat(f"drip {i}")))
            assert text_of(w.answer()) == f"drip {i}"
        w.drip(chunked_head() + chunks(json.dumps(chat("drip chunks")).encode(), [7] * 40))
        assert text_of(w.answer()) == "drip chunks"
    assert len(u.conns) == 1, "the connection to the engine is kept"


def test_every_split_of_a_request_in_two(shared):
    g, u = shared
    data = post(chat("split"), "X-A: b")
    with g.wire() as w:
        for at in range(1, len(data)):
            w.send(data[:at])
            # The worker has seen the first part when it answers another connection's request.
            if at % 16 == 0:
                assert g.ask(head("GET", "/health")).status == 200
            w.send(data[at:])
            assert text_of(w.answer()) == "split"
    assert {r.body for r in u.requests} == {u.requests[0].body}


def test_chunked_body_with_every_split_into_two_chunks(shared):
    g, u = shared
    body = json.dumps(chat("two chunks")).encode()
    with g.wire() as w:
        for at in range(1, len(body)):
            w.send(chunked_head() + chunks(body, [at]))
            assert text_of(w.answer()) == "two chunks"
    want = json.dumps(chat("two chunks", model="m@v1")).encode()
    for r in u.requests:
        assert r.get("content-length") == str(len(want))
        assert r.get("transfer-encoding") is None and r.body == want


def test_chunked_bytes_split_at_every_place(shared):
    """The same chunks, cut between any two bytes by the network."""
    g, u = shared
    body = json.dumps(chat("any place")).encode()
    data = chunked_head() + chunks(body, [1, 2, 30], extension=b';x="y"', trailer=b"X-T: 1\r\n")
    with g.wire() as w:
        for at in range(1, len(data)):
            w.send(data[:at])
            if at % 16 == 0:
                assert g.ask(head("GET", "/health")).status == 200
            w.send(data[at:])
            assert text_of(w.answer()) == "any place"
    assert all(r.get("x-t") is None for r in u.requests), "a trailer is dropped"


def test_chunk_sizes_tiny_huge_and_oddly_written(shared):
    g, u = shared
    body = json.dumps(chat("x" * 200_000)).encode()
    with g.wire() as w:
        w.send(chunked_head() + chunks(body, [100_000]))
        assert len(text_of(w.answer())) == 200_000
        w.send(chunked_head() + chunks(body[:0] + json.dumps(chat("tiny")).encode(), [1] * 100))
        assert text_of(w.answer()) == "tiny"
        odd = json.dumps(chat("odd")).encode()
        w.send(chunked_head() + b"0000%X ;q\r\n%s\r\n000;a=b\r\n\r\n" % (len(odd), odd))
        assert text_of(w.answer()) == "odd"
    assert len(u.requests) == 3


def test_random_chunking_and_segmentation(shared):
    g, u = shared
    rng = random.Random(20260722)
    with g.wire() as w:
        for i in range(60):
            text = "".join(rng.choice("añ語🎵 \\\"\n{}[]:,") for _ in range(rng.randint(0, 400)))
            body = json.dumps(chat(text), ensure_ascii=rng.random() < 0.5).encode()
            data = chunked_head() + chunks(
                body, [rng.randint(1, 60) for _ in range(len(body))])
            at = 0
            while at < len(data):
                n = rng.randint(1, 200)
                w.send(data[at:at + n])
                at += n
            assert text_of(w.answer()) == text, i
    assert len(u.requests) == 60


def test_pipelining_100_requests_are_answered_in_order(shared):
    g, u = shared
    with g.wire() as w:
        w.send(b"".join(post(chat(f"p{i}")) for i in range(100)))
        for i in range(100):
            assert text_of(w.answer()) == f"p{i}"
        assert w.silent(0.05)
    assert len(u.requests) == 100


def test_pipelining_own_pages_and_engine_answers_and_errors_mixed(shared):
    g, u = shared
    with g.wire() as w:
        data, want = b"", []
        for i in range(60):
            kind = i % 4
            if kind == 0:
                data, want = data + head("GET", "/health"), want + [200]
            elif kind == 1:
                data, want = data + post(chat(f"p{i}")), want + [200]
            elif kind == 2:
                data, want = data + post(b"[]"), want + [400]
            else:
                body = json.dumps(chat(f"c{i}")).encode()
                data, want = data + chunked_head() + chunks(body, [5, 9]), want + [200]
        w.send(data)
        got = [w.answer() for _ in want]
        assert [a.status for a in got] == want
        assert [text_of(a) for i, a in enumerate(got) if i % 4 in (1, 3)] == [
            f"{'p' if i % 4 == 1 else 'c'}{i}" for i in range(60) if i % 4 in (1, 3)]


def test_pipelined_large_requests_stay_within_bounds(shared):
    """1000 requests that nobody reads the answers of: they wait in the kernel, not in us."""
    g, u = shared
    before = g.rss()
    with g.wire() as w:
        done = threading.Event()
        data = b"".join(post(chat("x" * 3000 + str(i))) for i in range(1000))

        def push():
            w.send(data)
            done.set()
        threading.Thread(target=push, daemon=True).start()
        for i in range(1000):
            assert text_of(w.answer()).endswith(f"x{i}")
        assert done.wait(10)
    assert g.rss() - before < 30 << 20


def test_empty_lines_before_a_request_are_skipped(shared):
    g, _ = shared
    with g.wire() as w:
        for n in (1, 2, 3):
            w.send(b"\r\n" * n + post(chat("after empty lines")))
            assert text_of(w.answer()) == "after empty lines"


def test_http_1_0_closes_and_gets_no_chunks(shared):
    g, u = shared
    with g.wire() as w:
        a = w.ask(post(chat("old"), version="HTTP/1.0", host=None))
        assert text_of(a) == "old" and a.get("connection") == "close" and w.ended()
    with g.wire() as w:
        a = w.ask(post(chat("old stream", stream=True), version="HTTP/1.0"))
        assert a.framing == "close" and a.get("transfer-encoding") is None
        assert a.events()[-1] == "[DONE]" and a.complete
    assert all(r.version == "HTTP/1.1" for r in u.requests)


def test_http_1_0_with_keep_alive_goes_on(shared):
    g, _ = shared
    with g.wire() as w:
        for i in range(3):
            a = w.ask(post(chat(f"k{i}"), "Connection: keep-alive", version="HTTP/1.0"))
            assert text_of(a) == f"k{i}" and a.get("connection") == "keep-alive"


def test_connection_close_is_honoured(shared):
    g, _ = shared
    with g.wire() as w:
        w.send(post(chat("one"), "Connection: close") + post(chat("two")))
        a = w.answer()
        assert text_of(a) == "one" and a.get("connection") == "close" and w.ended()


def test_head_requests_get_heads_only(shared):
    g, _ = shared
    with g.wire() as w:
        for path in ("/health", "/v1/models", "/nothing", "/readiness"):
            a = w.ask(head("HEAD", path), "HEAD")
            b = w.ask(head("GET", path))
            assert (a.status, a.get("content-length")) == (b.status, b.get("content-length")), path
            assert a.body == b"" and b.body != b""


def test_expect_100_continue(shared):
    g, u = shared
    body = json.dumps(chat("continued")).encode()
    with g.wire() as w:
        w.send(head("POST", "/v1/chat/completions", "Expect: 100-continue",
                    f"Content-Length: {len(body)}"))
        wait_until(lambda: b"100 Continue\r\n\r\n" in w.buffer or w.more() is None, 5)
        assert u.requests == []
        a = w.send(body).answer()
        assert a.interim == [100] and text_of(a) == "continued"
        assert u.requests[0].get("expect") is None
        # The body comes with the head: nobody waits, no 100.
        a = w.ask(post(body, "Expect: 100-continue"))
        assert a.interim == [] and text_of(a) == "continued"
        # Chunked.
        w.send(chunked_head("Expect: 100-continue"))
        wait_until(lambda: b"100 Continue\r\n\r\n" in w.buffer or w.more() is None, 5)
        assert text_of(w.send(chunks(body, [3])).answer()) == "continued"


def test_expect_is_ignored_from_http_1_0(shared):
    g, _ = shared
    body = json.dumps(chat("old")).encode()
    with g.wire() as w:
        w.send(head("POST", "/v1/chat/completions", "Expect: 100-continue",
                    f"Content-Length: {len(body)}", version="HTTP/1.0"))
        assert w.silent(0.1)
        assert text_of(w.send(body).answer()) == "old"


def test_body_at_the_limit_and_one_above(shared):
    g, u = shared
    limit = g.limits["body_bytes"]
    empty = len(json.dumps(chat("")).encode())
    fits = json.dumps(chat("x" * (limit - empty))).encode()
    assert len(fits) == limit
    assert len(text_of(g.ask(post(fits)))) == limit - empty
    assert len(u.requests[0].body) == limit + len("@v1")
    assert g.ask(post(fits + b" ")).status == 413
    sizes = [65_000] * 17
    assert len(text_of(g.ask(chunked_head() + chunks(fits, sizes)))) == limit - empty
    assert g.ask(chunked_head() + chunks(fits + b" ", sizes)).status == 413


def test_head_at_the_limit_and_one_above(shared):
    g, _ = shared
    limit = g.limits["head_bytes"]
    base = len(head("GET", "/health", "X: "))
    with g.wire() as w:
        assert w.ask(head("GET", "/health", "X: " + "a" * (limit - base))).status == 200
        assert w.ask(head("GET", "/health", "X: " + "a" * (limit - base + 1))).status == 431


def test_100_fields_pass(shared):
    g, u = shared
    fields = [f"X-{i}: {i}" for i in range(97)]  # and Host, Content-Type, Content-Length
    assert text_of(g.ask(post(chat("many"), *fields))) == "many"
    got = dict(u.requests[0].fields)
    assert all(got[f"X-{i}"] == str(i) for i in range(97))


def test_absolute_target_is_forwarded_as_a_path(shared):
    g, u = shared
    assert text_of(g.ask(post(chat("abs"), target="http://test/v1/chat/completions?a=b"))) == "abs"
    assert u.requests[0].target == "/v1/chat/completions?a=b"


def test_query_is_kept(shared):
    g, u = shared
    assert text_of(g.ask(post(chat("q"), target="/v1/chat/completions?x=1&y=%20?"))) == "q"
    assert u.requests[0].target == "/v1/chat/completions?x=1&y=%20?"


def test_many_clients_at_once(shared):
    g, u = shared
    wires = [g.wire() for _ in range(200)]
    for i, w in enumerate(wires):
        w.send(post(chat(f"client {i}")))
    for i, w in enumerate(wires):
        assert text_of(w.answer()) == f"client {i}"
        w.close()
    wait_until(lambda: g.counters.all()["connections"] == 0)


def test_ipv6_clients(gateway, upstream):
    u = upstream()
    g = gateway(addresses=("127.0.0.1", "::1"), models=model(versions={"v1": (1, [u])}))
    with Wire(g.addresses[1]) as w:
        assert text_of(w.ask(post(chat("six")))) == "six"
    assert u.requests[0].get("x-real-ip") == "::1"


def test_client_that_leaves_in_the_middle_of_a_request(shared):
    g, u = shared
    data = post(chat("never whole"))
    for at in range(1, len(data), 7):
        with g.wire() as w:
            w.send(data[:at])
            if at % 2:
                w.reset()
    for at in range(1, 400, 13):
        with g.wire() as w:
            w.send((chunked_head() + chunks(json.dumps(chat("x" * 300)).encode(), [9] * 20))[:at])
    wait_until(lambda: g.counters.all()["connections"] == 0)
    assert all(r.text() == "x" * 300 for r in u.requests)
    assert text_of(g.ask(post(chat("still here")))) == "still here"
