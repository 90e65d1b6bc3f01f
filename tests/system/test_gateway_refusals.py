"""What the gateway refuses: status, OpenAI's error shape, connection closed, nothing forwarded."""
import pytest

from harness import chat, head, model, post, wait_until

pytestmark = pytest.mark.gateway

CRLF = b"\r\n"


def raw(*lines, body=b""):
    return CRLF.join(line.encode("latin-1") if isinstance(line, str) else line
                     for line in lines) + CRLF + CRLF + body


P = "POST /v1/chat/completions HTTP/1.1"
H = "Host: test"

# name: (bytes, status)
MALFORMED = {
    "no method": (raw(" /v1/models HTTP/1.1", H), 400),
    "method with a colon": (raw("GE:T /v1/models HTTP/1.1", H), 400),
    "no target": (raw("GET HTTP/1.1", H), 400),
    "two spaces": (raw("GET  /v1/models HTTP/1.1", H), 400),
    "tab as separator": (raw("GET\t/v1/models HTTP/1.1", H), 400),
    "space in the target": (raw("GET /v1/ models HTTP/1.1", H), 400),
    "fragment in the target": (raw("GET /v1/models#x HTTP/1.1", H), 400),
    "byte above ASCII in the target": (raw(b"GET /v1/\xe4 HTTP/1.1", H), 400),
    "percent without digits": (raw("GET /v1/%4 HTTP/1.1", H), 400),
    "relative target": (raw("GET v1/models HTTP/1.1", H), 400),
    "asterisk without OPTIONS": (raw("GET * HTTP/1.1", H), 400),
    "CONNECT": (raw("CONNECT test:80 HTTP/1.1", H), 400),
    "HTTP/0.9": (raw("GET /v1/models"), 400),
    "HTTP/2.0": (raw("GET /v1/models HTTP/2.0", H), 505),
    "HTTP/1.2": (raw("GET /v1/models HTTP/1.2", H), 505),
    "the HTTP/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "lower-case version": (raw("GET /v1/models http/1.1", H), 400),
    "space after the version": (raw("GET /v1/models HTTP/1.1 ", H), 400),
    "bare LF after the request line": (b"GET /v1/models HTTP/1.1\nHost: test\r\n\r\n", 400),
    "bare LF after a field": (b"GET /v1/models HTTP/1.1\r\nHost: test\n\r\n", 400),
    "bare LF everywhere": (b"GET /v1/models HTTP/1.1\nHost: test\n\n", 400),
    "bare CR in a value": (raw("GET /v1/models HTTP/1.1", H, "X: a\rb"), 400),
    "NUL in a value": (raw("GET /v1/models HTTP/1.1", H, "X: a\0b"), 400),
    "control byte in a value": (raw("GET /v1/models HTTP/1.1", H, "X: a\x01b"), 400),
    "DEL in a value": (raw("GET /v1/models HTTP/1.1", H, "X: a\x7fb"), 400),
    "space before the colon": (raw("GET /v1/models HTTP/1.1", "Host : test"), 400),
    "field without a colon": (raw("GET /v1/models HTTP/1.1", H, "Nonsense"), 400),
    "field without a name": (raw("GET /v1/models HTTP/1.1", H, ": x"), 400),
    "field name with a space": (raw("GET /v1/models HTTP/1.1", H, "A B: x"), 400),
    "field name above ASCII": (raw("GET /v1/models HTTP/1.1", H, b"\xc3\xa4: x"), 400),
    "folded line": (raw("GET /v1/models HTTP/1.1", H, "X: a", " b"), 400),
    "folded first line": (raw("GET /v1/models HTTP/1.1", " Host: test"), 400),
    "no Host": (raw("GET /v1/models HTTP/1.1"), 400),
    "two Hosts": (raw("GET /v1/models HTTP/1.1", H, H), 400),
    "empty Host": (raw("GET /v1/models HTTP/1.1", "Host:"), 400),
    "Host with a path": (raw("GET /v1/models HTTP/1.1", "Host: a/b"), 400),
    "Host with user data": (raw("GET /v1/models HTTP/1.1", "Host: me@test"), 400),
    "absolute target of another host": (raw("GET http://other/v1/models HTTP/1.1", H), 400),
    "two equal lengths": (raw(P, H, "Content-Length: 2", "Content-Length: 2", body=b"{}"), 400),
    "two lengths": (raw(P, H, "Content-Length: 2", "Content-Length: 3", body=b"{}"), 400),
    "list of lengths": (raw(P, H, "Content-Length: 2, 2", body=b"{}"), 400),
    "signed length": (raw(P, H, "Content-Length: +2", body=b"{}"), 400),
    "negative length": (raw(P, H, "Content-Length: -2", body=b"{}"), 400),
    "hexadecimal length": (raw(P, H, "Content-Length: 0x2", body=b"{}"), 400),
    "empty length": (raw(P, H, "Content-Length:", body=b"{}"), 400),
    "length with a space": (raw(P, H, "Content-Length: 1 2", body=b"{}"), 400),
    "length beyond 64 bits": (raw(P, H, "Content-Length: 18446744073709551618", body=b"{}"), 400),
    "length and chunks": (raw(P, H, "Content-Length: 2", "Transfer-Encoding: chunked",
                              body=b"2\r\n{}\r\n0\r\n\r\n"), 400),
    "chunks and length": (raw(P, H, "Transfer-Encoding: chunked", "Content-Length: 2",
                              body=b"2\r\n{}\r\n0\r\n\r\n"), 400),
    "gzip and chunks": (raw(P, H, "Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 400),
    "chunked twice": (raw(P, H, "Transfer-Encoding: chunked", "Transfer-Encoding: chunked",
                          body=b"0\r\n\r\n"), 400),
    "unknown coding": (raw(P, H, "Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), 400),
    "identity": (raw(P, H, "Transfer-Encoding: identity", body=b"{}"), 400),
    "coding with a vertical tab": (raw(P, H, "Transfer-Encoding: \x0bchunked", body=b""), 400),
    "chunks with HTTP/1.0": (raw("POST /v1/chat/completions HTTP/1.0", H,
                                 "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
    "chunk size that is no number": (raw(P, H, "Transfer-Encoding: chunked", body=b"zz\r\n"), 400),
    "signed chunk size": (raw(P, H, "Transfer-Encoding: chunked", body=b"+2\r\n{}\r\n0\r\n\r\n"),
                          400),
    "chunk size with 0x": (raw(P, H, "Transfer-Encoding: chunked", body=b"0x2\r\n{}\r\n"), 400),
    "empty chunk size": (raw(P, H, "Transfer-Encoding: chunked", body=b"\r\n{}\r\n"), 400),
    "chunk size beyond 64 bits": (raw(P, H, "Transfer-Encoding: chunked",
                                      body=b"10000000000000000\r\n"), 400),
    "chunk size line with bare LF": (raw(P, H, "Transfer-Encoding: chunked",
                                         body=b"2\n{}\r\n0\r\n\r\n"), 400),
    "chunk longer than its size": (raw(P, H, "Transfer-Encoding: chunked",
                                       body=b"2\r\n{}}\r\n0\r\n\r\n"), 400),
    "endless chunk extension": (raw(P, H, "Transfer-Encoding: chunked",
                                    body=b"2;" + b"x" * 20000), 400),
    "bad trailer": (raw(P, H, "Transfer-Encoding: chunked",
                        body=b"2\r\n{}\r\n0\r\nno colon\r\n\r\n"), 400),
    "endless trailer": (raw(P, H, "Transfer-Encoding: chunked",
                            body=b"2\r\n{}\r\n0\r\n" + b"A: b\r\n" * 20000), 400),
    "another expectation": (raw(P, H, "Expect: 200-ok", "Content-Length: 2"), 417),
    "head above the limit": (raw("GET /v1/models HTTP/1.1", H, "X: " + "a" * 17000), 431),
    "endless request line": (b"GET /" + b"a" * 40000, 431),
    "101 fields": (raw("GET /v1/models HTTP/1.1", H, *(f"X-{i}: 1" for i in range(101))), 431),
    "body above the limit": (raw(P, H, "Content-Length: 1048577"), 413),
    "enormous body": (raw(P, H, "Content-Length: 18446744073709551615"), 413),
    "TLS on the plain port": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
    "an SSH client": (b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n", 400),
}


@pytest.fixture
def shared(gateway, upstream):
    u = upstream()
    g = gateway(models=model(versions={"v1": (1, [u])}))
    return g, u


def test_malformed_requests_are_refused_and_never_forwarded(shared):
    g, u = shared
    wrong = []
    for name, (data, status) in MALFORMED.items():
        with g.wire() as w:
            try:
                # A good request behind it must not be answered: the connection is at its end.
                w.send(data + post(chat("smuggled")))
                a = w.answer()
                if a.status != status:
                    wrong.append(f"{name}: {a.status}, expected {status}: {a.body[:200]}")
                assert a.complete and a.error["message"], name
                assert a.error["type"] == "invalid_request_error", name
                assert a.get("connection") == "close", name
                if not w.ended():
                    wrong.append(f"{name}: the connection goes on: {w.buffer[:100]}")
            except (AssertionError, EOFError, OSError, ValueError) as e:
                wrong.append(f"{name}: {e!r}")
    assert not wrong, "\n".join(wrong)
    assert u.requests == [] and u.conns == []
    counters = g.counters.all()
    assert counters["errors_4xx"] + counters["errors_5xx"] == len(MALFORMED)
    wait_until(lambda: g.counters.all()["connections"] == 0, what="every connection has ended")


# What has good framing is refused too, but the connection can go on.
# name: (request, status, code, words in the message)
SENSELESS = {
    "no body": (head("POST", "/v1/chat/completions"), 400, "bad_json", ["empty"]),
    "empty body": (post(b""), 400, "bad_json", ["empty"]),
    "no JSON": (post(b"hello"), 400, "bad_json", ["JSON", "byte 0"]),
    "JSON cut short": (post(b'{"model": "m"'), 400, "bad_json", ["JSON"]),
    "JSON with a rest": (post(b'{"model": "m"} x'), 400, "bad_json", ["JSON", "byte 15"]),
    "array": (post(b"[1]"), 400, "bad_json", ["object"]),
    "string": (post(b'"m"'), 400, "bad_json", ["object"]),
    "trailing comma": (post(b'{"model": "m",}'), 400, "bad_json", ["JSON"]),
    "comment": (post(b'{"model": "m" /* x */}'), 400, "bad_json", ["JSON"]),
    "byte order mark": (post(b'\xef\xbb\xbf{"model": "m"}'), 400, "bad_json", ["JSON"]),
    "not UTF-8": (post(b'{"model": "m", "x": "\xff"}'), 400, "bad_json", ["UTF-8"]),
    "overlong UTF-8": (post(b'{"model": "m", "x": "\xc0\xaf"}'), 400, "bad_json", ["UTF-8"]),
    "surrogate in UTF-8": (post(b'{"model": "m", "x": "\xed\xa0\x80"}'), 400, "bad_json",
                           ["UTF-8"]),
    "nested too deep": (post(b'{"model": "m", "x": ' + b"[" * 300 + b"]" * 300 + b"}"), 400,
                        "bad_json", ["256"]),
    "model twice": (post(b'{"model": "m", "model": "m"}'), 400, "bad_json", ["twice", "byte"]),
    "model twice, once escaped": (post(b'{"model": "m", "\\u006dodel": "x"}'), 400, "bad_json",
                                  ["twice"]),
    "model is a number": (post(b'{"model": 1}'), 400, "bad_model", ["string"]),
    "model is an object": (post(b'{"model": {}}'), 400, "bad_model", ["string"]),
    "model is true": (post(b'{"model": true}'), 400, "bad_model", ["string"]),
    "model is very long": (post({"model": "m" * 500}), 400, "bad_model", ["130"]),
    "model with NUL": (post(b'{"model": "m\\u0000"}'), 400, "bad_model", ["plain string"]),
    "model with half a surrogate": (post(b'{"model": "\\ud800"}'), 400, "bad_model",
                                    ["plain string"]),
    "unknown model": (post(chat(model="nobody")), 404, "model_not_found", ["nobody", "m"]),
    "unknown version": (post(chat(model="m@v9")), 404, "model_not_found", ["m@v9"]),
    "unknown path": (post(chat(), target="/v1/nothing"), 404, "not_found", ["/v1/nothing"]),
    "root": (head("POST", "/", "Content-Length: 0"), 404, "not_found", []),
    "admin verbs": (head("GET", "/admin/v1/status"), 404, "not_found", []),
    "the engine's own endpoints": (post(b"{}", target="/sleep"), 404, "not_found", []),
    "path with dots": (post(chat(), target="/v1/x/../chat/completions"), 404, "not_found", []),
    "path with an escaped letter": (post(chat(), target="/v1/chat/%63ompletions"), 404,
                                    "not_found", []),
    "doubled slash": (post(chat(), target="//v1/chat/completions"), 404, "not_found", []),
    "GET of a completion": (head("GET", "/v1/chat/completions"), 405, "method_not_allowed",
                            ["POST"]),
    "PUT of a completion": (head("PUT", "/v1/completions", "Content-Length: 2") + b"{}", 405,
                            "method_not_allowed", ["POST"]),
    "POST of models": (post(b"{}", target="/v1/models"), 405, "method_not_allowed", ["GET"]),
    "unknown method": (head("BREW", "/v1/models"), 405, "method_not_allowed", ["GET"]),
}


def test_senseless_requests_get_an_openai_error_and_the_connection_goes_on(shared):
    g, u = shared
    wrong = []
    with g.wire() as w:
        for name, (data, status, code, words) in SENSELESS.items():
            a = w.ask(data)
            got = (a.status, a.error["code"], a.error["type"])
            if got != (status, code, "invalid_request_error"):
                wrong.append(f"{name}: {got}, expected {status} {code}: {a.body[:200]}")
            wrong += [f"{name}: no '{word}' in {a.error['message']!r}" for word in words
                      if word not in a.error["message"]]
        assert not wrong, "\n".join(wrong)
        assert u.requests == []
        assert w.ask(post(chat())).status == 200


def test_405_names_the_allowed_method_in_a_field(shared):
    g, _ = shared
    a = g.ask(head("GET", "/v1/chat/completions"))
    assert a.status == 405 and a.get("allow") == "POST"
    assert g.ask(post(b"{}", target="/v1/models")).get("allow") in ("GET", "GET, HEAD")


def test_too_large_a_body_is_refused_while_the_client_uploads(shared):
    """The answer must survive: closing at once would reset the connection under it."""
    g, u = shared
    for _ in range(5):
        with g.wire() as w:
            w.send(head("POST", "/v1/chat/completions", f"Content-Length: {8 << 20}"))
            try:
                for _ in range(32):
                    w.send(b"x" * 16384)
            except ConnectionError:
                pass  # allowed, as long as the answer can be read
            a = w.answer()
            assert a.status == 413 and a.error["code"] == "body_too_large"
            assert "1048576" in a.error["message"]
    assert u.requests == []


def test_too_large_a_chunked_body_is_refused_at_the_limit(shared):
    g, u = shared
    with g.wire() as w:
        w.send(head("POST", "/v1/chat/completions", "Transfer-Encoding: chunked"))
        chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
        try:
            for _ in range(80):
                w.send(chunk)
        except ConnectionError:
            pass
        assert w.answer().status == 413
    assert u.requests == []


def test_expect_with_too_large_a_body_gets_413_and_no_100(shared):
    g, _ = shared
    with g.wire() as w:
        a = w.ask(head("POST", "/v1/chat/completions", "Expect: 100-continue",
                       "Content-Length: 99999999"))
        assert a.interim == [] and a.status == 413


def test_the_overload_refusal_is_whole_and_has_the_right_length(gateway, upstream):
    """limits.connections: told at once, in JSON, with Retry-After."""
    g = gateway(workers=1, limits={"connections": 4}, models=model(versions={"v1": (1, [upstream()])}))
    wires = [g.wire() for _ in range(4)]
    for w in wires:
        assert w.ask(head("GET", "/health")).status == 200
    with g.wire() as w:
        a = w.answer()
        assert a.status == 503 and a.complete and a.error["code"] == "too_many_connections"
        assert a.get("retry-after") == "1" and w.ended()
    wires[0].close()
    wait_until(lambda: g.ask(head("GET", "/health")).status == 200, what="a place is free again")
    assert g.counters.all()["refused"] >= 1
    for w in wires:
        w.close()
