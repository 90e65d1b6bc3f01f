"""The clients that people have: the official `openai` client for JavaScript, and curl.

The one for Python, and a browser's fetch, have tests of their own (test_serve_clients.py,
test_page.py).
"""
import json
import shutil
import subprocess
import threading
import time

import pytest

from harness import ROOT, SLOW, answer, chat, chunked, event_stream, model, wait_until

OPENAI = ROOT / ".deps" / "openai"
TEXT = "grüße 🙂"
DONE = chunked(b"data: [DONE]\n\n")


def one(u, **more):
    return model("m", {"v1": (1, [u])}, **more)


def piece(text, finish=None):
    return chunked(b"data: %s\n\n" % json.dumps({
        "id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m@v1",
        "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]}).encode(),
        last=False)


def fails(status, reason, code, *fields):
    """A script: the engine's own error."""
    return lambda r, c: c.send(answer({"error": {"message": "the engine says so", "type": "fake",
                                                 "param": "messages", "code": code}},
                                      status, *fields, reason=reason))


# --- JavaScript ----------------------------------------------------------------------------------

class Node:
    """The client's process; what it has said so far, line by line."""

    def __init__(self, box, address, scenario):
        assert (OPENAI / "index.mjs").exists(), f"{OPENAI} is not there; ./dev test fetches it"
        node = shutil.which("node") or shutil.which("nodejs")
        self.popen = subprocess.Popen(
            [node, ROOT / "tests" / "clients" / "openai.mjs", OPENAI, "http://%s:%d" % address,
             scenario], env=box.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, encoding="utf-8")
        box.own(self)

    def line(self):
        text = self.popen.stdout.readline()
        assert text, self.popen.stderr.read()
        return json.loads(text)

    def say(self, text):
        self.popen.stdin.write(text + "\n")
        self.popen.stdin.flush()

    def result(self):
        """Its last line."""
        out, err = self.popen.communicate(timeout=60)
        assert self.popen.returncode == 0, err
        return json.loads(out.splitlines()[-1])

    def close(self):
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.communicate()


@pytest.fixture
def js(box, gateway, upstream):
    """js(scenario, script): (Node, Gateway, Upstream)"""
    def start(scenario, script=None, **more):
        u = upstream(script)
        g = gateway(models=one(u, **more))
        return Node(box, g.address, scenario), g, u
    return start


def test_js_plain(js):
    node, _, u = js("plain")
    seen = node.result()
    assert seen["text"] == TEXT and seen["model"] == "m@v1" and seen["version"] == "m@v1"
    assert seen["requestID"] == u.requests[0].get("x-request-id")
    assert u.models() == ["m@v1"]


def test_js_streamed_each_text_when_it_comes(js):
    go = threading.Event()

    def script(request, conn):
        conn.send(event_stream() + piece("Guten "))
        assert go.wait(30)
        conn.send(piece("Täg") + piece("", "stop") + DONE)
    node, _, u = js("stream", script)
    assert node.line() == {"text": "Guten "}
    go.set()
    assert node.result() == {"texts": ["Guten ", "Täg"]}
    assert u.requests[0].json()["stream"] is True


def test_js_abort_in_the_stream_ends_the_work_of_the_engine(js):
    def script(request, conn):
        conn.send(event_stream() + piece("never ending"))
        conn.wait_end()
    node, g, u = js("abort", script)
    seen = node.result()
    assert seen["texts"] == ["never ending"] and seen["aborted"] is True
    assert u.conns[-1].ended.wait(5)
    g.settled()
    assert g.replica(u)["cancelled"] == 1


def test_js_abort_before_the_answer_ends_the_work_of_the_engine(js):
    node, g, u = js("abortBeforeTheAnswer", lambda r, c: c.wait_end())
    wait_until(lambda: u.requests, 20, "the engine has the request")
    node.say("abort")
    assert "APIUserAbortError" in node.result()["error"]["classes"]
    assert u.conns[-1].ended.wait(5)
    g.settled()
    assert g.replica(u)["cancelled"] == 1


def test_js_models(js):
    node, _, _ = js("models", aliases=["other"])
    seen = node.result()
    assert "m" in seen["found"] and seen["one"]["id"] == "m"


@pytest.mark.parametrize("status, reason, code, kind", [
    (400, "Bad Request", "bad", "BadRequestError"),
    (422, "Unprocessable Entity", "odd", "UnprocessableEntityError"),
    (429, "Too Many Requests", "slow_down", "RateLimitError"),
    (500, "Internal Server Error", "broken", "InternalServerError"),
    (503, "Service Unavailable", "later", "InternalServerError"),
])
def test_js_errors_of_the_engine(js, status, reason, code, kind):
    node, _, u = js("failure", fails(status, reason, code, "Retry-After: 1"))
    e = node.result()["error"]
    assert e["classes"][0] == kind and e["status"] == status
    assert (e["code"], e["type"], e["param"]) == (code, "fake", "messages")
    assert "the engine says so" in e["message"] and e["requestID"]


def test_js_unknown_model(js):
    node, _, _ = js("unknownModel")
    e = node.result()["error"]
    assert e["classes"][0] == "NotFoundError" and e["code"] == "model_not_found"
    assert "nobody" in e["message"] and "m" in e["message"]


def test_js_no_engine(js):
    node, _, _ = js("failure", lambda r, c: c.close(), hold_ms=300)
    e = node.result()["error"]
    assert e["classes"][0] == "InternalServerError" and e["status"] in (502, 503)
    assert e["type"] == "server_error" and e["code"]


def test_js_a_stream_that_is_cut_is_an_error_and_not_an_end(js):
    def script(request, conn):
        conn.send(event_stream() + piece("half"))
        conn.close()
    node, g, u = js("stream", script)
    seen = node.result()
    assert seen["texts"] == ["half"]
    assert "APIError" in seen["error"]["classes"] and seen["error"]["code"] == "engine_gone"
    g.settled()
    assert g.replica(u)["truncated"] == 1


def test_js_many_at_once(js):
    node, g, _ = js("many")
    assert node.result() == {"texts": [TEXT], "n": 100}
    wait_until(lambda: g.counters.all()["connections"] == 0, 10, "its connections have ended")
    assert g.counters.all()["opened"] <= 40, "they were kept"


# --- curl ----------------------------------------------------------------------------------------

class Curl:
    def __init__(self, box, g, *args, stdin=subprocess.DEVNULL,
                 target="/v1/chat/completions"):
        self.url = "http://%s:%d%s" % (*g.address, target)
        self.popen = subprocess.Popen(
            ["curl", "--http1.1", "-sSv", "--max-time", "60", *args, self.url], env=box.env,
            stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        box.own(self)

    def result(self, status=0):
        """(body, what -v has told)"""
        out, err = self.popen.communicate(timeout=90)
        err = err.decode("utf-8", "replace")
        assert self.popen.returncode == status, f"status {self.popen.returncode}\n{err}"
        return out, err

    def close(self):
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.communicate()


@pytest.fixture
def curl(box, gateway, upstream):
    """curl(*args, script=...): (Curl, Gateway, Upstream); {url} in args is the request's."""
    def start(*args, script=None, **more):
        u = upstream(script)
        g = gateway(models=one(u), limits={"body_bytes": 8 << 20})
        return Curl(box, g, *args, **more), g, u
    return start


def body(tmp_path, stream=False, **more):
    path = tmp_path / "body.json"
    path.write_text(json.dumps(chat(TEXT, stream=stream, **more), ensure_ascii=False))
    return ["-H", "Content-Type: application/json", "--data-binary", f"@{path}"]


def test_curl_plain(curl, tmp_path):
    c, _, u = curl(*body(tmp_path))
    out, err = c.result()
    assert json.loads(out)["choices"][0]["message"]["content"] == TEXT
    assert "< HTTP/1.1 200 OK" in err and "X-Segue-Version: m@v1" in err
    assert "left intact" in err, "the connection can be used again"
    assert len(u.requests) == 1


def test_curl_streamed_each_event_when_it_comes(curl, tmp_path):
    go = threading.Event()

    def script(request, conn):
        conn.send(event_stream() + piece("first"))
        assert go.wait(30)
        conn.send(piece("second", "stop") + DONE)
    c, _, _ = curl("-N", *body(tmp_path, stream=True), script=script)
    line = c.popen.stdout.readline()
    assert line.startswith(b"data: ") and b"first" in line
    go.set()
    out, err = c.result()
    assert b"second" in out and out.endswith(b"data: [DONE]\n\n")
    assert "left intact" in err


def test_curl_expect_100_continue_by_itself_for_a_large_body(curl, tmp_path):
    c, _, u = curl(*body(tmp_path, pad="x" * (2 << 20)))
    out, err = c.result()
    assert json.loads(out)["choices"][0]["message"]["content"] == TEXT
    assert "> Expect: 100-continue" in err and "< HTTP/1.1 100 Continue" in err
    assert err.index("100 Continue") < err.index("200 OK")
    assert len(u.requests[0].json()["pad"]) == 2 << 20 and u.requests[0].get("expect") is None


def test_curl_expect_100_continue_is_refused_before_the_body(curl, tmp_path):
    c, _, u = curl(*body(tmp_path, pad="x" * (9 << 20)))
    out, err = c.result()
    assert json.loads(out)["error"]["code"] == "body_too_large"
    assert "100 Continue" not in err and u.requests == []


def test_curl_http_1_0(curl, tmp_path):
    c, _, _ = curl("-0", *body(tmp_path))
    out, err = c.result()
    assert "> POST /v1/chat/completions HTTP/1.0" in err
    assert json.loads(out)["choices"][0]["message"]["content"] == TEXT
    assert "chunked" not in err.lower()


def test_curl_http_1_0_streamed_until_the_connection_ends(curl, tmp_path):
    c, _, _ = curl("-0", "-N", *body(tmp_path, stream=True))
    out, err = c.result()
    assert out.endswith(b"data: [DONE]\n\n")
    assert "chunked" not in err.lower() and "< Connection: close" in err


def test_curl_chunked_upload(curl, tmp_path):
    c, _, u = curl("-H", "Transfer-Encoding: chunked", *body(tmp_path, pad="y" * 300000))
    out, err = c.result()
    assert json.loads(out)["choices"][0]["message"]["content"] == TEXT
    assert u.requests[0].get("transfer-encoding") is None
    assert int(u.requests[0].get("content-length")) == len(u.requests[0].body)


def test_curl_keeps_its_connection(box, curl, tmp_path):
    """Three requests, one after the other, over one connection."""
    c, g, u = curl(*body(tmp_path))
    c.result()
    url = c.url
    c = Curl(box, g, *body(tmp_path), "-w", "\n%{num_connects}\n", url, url)
    out, _ = c.result()
    assert [line for line in out.decode().split("\n") if line in "0123456789" and line] == \
        ["1", "0", "0"]
    assert len(u.requests) == 4


@pytest.mark.parametrize("version, status", [("--http1.1", 18), ("-0", 56)])
def test_curl_notices_a_cut_stream(curl, tmp_path, version, status):
    """18: the last chunk is missing; 56: the connection was reset."""
    def script(request, conn):
        conn.send(event_stream() + piece("half"))
        conn.close()
    c, g, u = curl(version, "-N", *body(tmp_path, stream=True), script=script)
    out, _ = c.result(status)
    assert b"half" in out and b"engine_gone" in out
    g.settled()
    assert g.replica(u)["truncated"] == 1


def test_curl_killed_in_a_stream_ends_the_work_of_the_engine(curl, tmp_path):
    def script(request, conn):
        conn.send(event_stream() + piece("never ending"))
        conn.wait_end()
    c, g, u = curl("-N", *body(tmp_path, stream=True), script=script)
    assert c.popen.stdout.readline()
    left = time.monotonic_ns()
    c.popen.kill()
    assert u.conns[-1].ended.wait(5)
    assert (u.conns[-1].ended_ns - left) / 1e9 < 1 * SLOW
    g.settled()
    assert g.replica(u)["cancelled"] == 1
