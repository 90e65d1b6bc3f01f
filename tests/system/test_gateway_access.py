"""The access log of the gateway: what each line says, rotation, files that do not take it."""
import json
import os
import re
import socket
import struct

import pytest

from harness import (SLOW, answer, chat, chunked, event_stream, head, model, post,
                     wait_until)

pytestmark = pytest.mark.gateway

FIELDS = ["time", "request_id", "client", "key", "method", "path", "model", "version", "replica",
          "status", "outcome", "error", "bytes", "events", "first_byte_ms", "token_ms", "total_ms",
          "held_ms", "tries", "overhead_us"]


def hand_over(g, fd, format="json"):
    """As the manager does: at the start, and after a rotation."""
    data = json.dumps({"type": "access_log", "format": format} if fd is not None
                      else {"type": "access_log"}).encode()
    socket.send_fds(g.connection, [struct.pack("<I", len(data)) + data], [] if fd is None else [fd])
    if fd is not None:
        os.close(fd)


def open_log(path):
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK, 0o640)


@pytest.fixture
def logged(gateway, box):
    """A gateway with an access log; its lines by .lines(n)."""
    def make(format="json", **more):
        g = gateway(**{"workers": 1, **more})  # one: the lines are in order
        path = box.folder / "access.txt"
        hand_over(g, open_log(path), format)
        g.publish()  # acknowledged behind it: all workers have the log
        g.access = path

        def lines(n, file=path):
            def enough():
                return file.exists() and file.read_bytes().count(b"\n") >= n
            wait_until(enough, 5 * SLOW, f"{n} lines in the access log")
            text = file.read_text().splitlines()
            return [json.loads(line) for line in text] if format == "json" else text
        g.lines = lines
        return g
    return make


def one(u, **more):
    return model(versions={"v1": (1, [u])}, **more)


# --- what a line says -------------------------------------------------------------------------


def test_a_line_says_what_happened(logged, upstream):
    g = logged(models=one(upstream()))
    with g.wire() as w:
        a = w.ask(post(chat("hello"), "X-Request-Id: abc-1"))
        b = w.ask(post(chat("hello", stream=True)))
    plain, stream = g.lines(2)
    assert list(plain) == FIELDS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", plain["time"])
    assert (plain["request_id"], plain["client"], plain["method"]) == ("abc-1", "127.0.0.1", "POST")
    assert (plain["path"], plain["model"], plain["version"]) == ("/v1/chat/completions", "m", "m@v1")
    assert (plain["status"], plain["outcome"], plain["error"]) == (200, "finished", None)
    assert plain["bytes"] == len(a.body) and plain["events"] == 0 and plain["tries"] == 1
    assert plain["token_ms"] is None and plain["held_ms"] == 0
    assert 0 <= plain["first_byte_ms"] <= plain["total_ms"] < 10000 * SLOW
    assert plain["overhead_us"] == int(a.get("X-Segue-Overhead-Us"))
    assert stream["request_id"] == b.get("X-Request-Id")
    assert stream["events"] == 3 and stream["bytes"] == len(b.body)
    assert stream["token_ms"] is not None


def test_the_replica_is_named_as_the_manager_names_it(logged, upstream):
    u = upstream()
    m = model(versions={"v1": (1, [{"slot": 0, "address": u.address, "prefix": "", "serve_as": "x",
                                    "ready": True, "name": "m@v1#7"}])})
    g = logged(models=m)
    g.ask(post(chat()))
    assert g.lines(1)[0]["replica"] == "m@v1#7"


def test_what_the_gateway_itself_answers(logged, upstream):
    g = logged(models=one(upstream()))
    cases = [
        (head("GET", "/v1/models"), "GET", 200, None),
        (head("GET", "/health"), "GET", 200, None),
        (head("GET", "/nowhere?secret=1"), "GET", 404, "not_found"),
        (head("GET", "/v1/chat/completions"), "GET", 405, "method_not_allowed"),
        (post("{"), "POST", 400, "bad_json"),
        (post(chat(model="none")), "POST", 404, "model_not_found"),
        (b"GET / HTTP/1.1\r\n\r\n", None, 400, "bad_request"),
        (b"nonsense\r\n\r\n", None, 400, "bad_request"),
    ]
    for data, method, status, _ in cases:
        assert g.ask(data, method or "GET").status == status
    lines = {(n["path"], n["status"], n["error"]): n for n in g.lines(len(cases))}
    assert len(g.lines(len(cases))) == len(cases)
    for data, method, status, error in cases:
        line = [n for n in g.lines(1) if n["status"] == status and n["error"] == error][0]
        assert line["outcome"] == ("refused" if error else "finished")
        assert line["method"] == method and line["tries"] == 0 and line["bytes"] > 0
    assert ("/nowhere", 404, "not_found") in lines, "the query stays out of the log"


def test_failed_truncated_cancelled(logged, upstream):
    def script(request, conn):
        text = request.text()
        if text == "500":
            conn.send(answer({"error": "x"}, 500))
        elif text == "cut":
            conn.send(event_stream() + chunked(b"data: 1\n\n", last=False))
            conn.close()
        elif text == "dead":
            conn.close()
        else:
            conn.send(event_stream() + chunked(b"data: 1\n\n", last=False))
            conn.wait_end()
    g = logged(models=one(upstream(script), hold_ms=0))
    assert g.ask(post(chat("500"))).status == 500
    assert not g.ask(post(chat("cut", stream=True))).complete
    with g.wire() as w:
        assert w.send(post(chat("leave", stream=True))).head().status == 200
    g.settled()
    assert g.ask(post(chat("dead"))).status in (502, 503)
    got = {n["outcome"]: n for n in g.lines(4)}
    lines = g.lines(4)
    assert [n["outcome"] for n in lines] == ["failed", "truncated", "cancelled", "failed"]
    assert (lines[0]["status"], lines[0]["error"]) == (500, None)
    assert (got["truncated"]["status"], got["truncated"]["events"]) == (200, 1)
    assert got["cancelled"]["status"] == 200
    assert lines[3]["error"] and lines[3]["tries"] >= 1


def test_waiting_is_in_the_line(logged, upstream):
    u = upstream()
    m = one(u, expected=True)
    m["versions"][0]["replicas"][0]["ready"] = False
    g = logged(models=m)
    with g.wire() as w:
        w.send(post(chat()))
        wait_until(lambda: g.counters.all()["held"] == 1, 5, "it is held")
        m["versions"][0]["replicas"][0]["ready"] = True
        g.publish(m)
        assert w.answer().status == 200
    line = g.lines(1)[0]
    assert line["outcome"] == "finished" and 0 < line["held_ms"] <= line["total_ms"]


def test_a_client_cannot_forge_a_line(logged, upstream):
    g = logged(models=one(upstream()))
    evil = 'x"}\n{"status":200} \u2028\x7f😀'
    g.ask(post(chat(model=evil)))
    with g.wire() as w:
        w.ask(b'GET /a"b\\c\xff%0a HTTP/1.1\r\nHost: x\r\nX-Request-Id: a"b\r\n\r\n', "GET")
    raw = g.lines(2)
    assert g.access.read_bytes().count(b"\n") == 2
    assert raw[0]["model"] == evil and raw[0]["status"] in (400, 404)
    assert raw[1]["status"] in (400, 404)
    assert raw[1]["request_id"] is None


def test_text_lines(logged, upstream):
    g = logged("text", models=one(upstream()))
    g.ask(post(chat("hello")))
    g.ask(post(chat(model="a b\"c\n=")))
    first, second = g.lines(2)
    names = re.findall(r"(?:^| )([a-z_]+)=", first)
    assert names == FIELDS
    assert " status=200 outcome=finished error=- " in first and " model=m version=m@v1 " in first
    assert ' model="a b\\"c\\u000a=" ' in second and " outcome=refused error=model_not_found " in second


# --- the file ---------------------------------------------------------------------------------


def test_rotation_loses_no_line(logged, upstream, box):
    g = logged(models=one(upstream()), workers=2)
    total = 0
    with g.wire() as w:
        for i in range(5):
            for _ in range(20):
                assert w.ask(post(chat())).status == 200
                total += 1
            os.rename(g.access, box.folder / f"access.{i}")
            hand_over(g, open_log(g.access))
            g.publish()

    def count():
        files = [g.access, *(box.folder / f"access.{i}" for i in range(5))]
        return sum(f.read_bytes().count(b"\n") for f in files)
    wait_until(lambda: count() == total, 5 * SLOW, "all lines are in one of the files")
    assert g.counters.all()["log_lines"] == total and g.counters.all()["log_lost"] == 0


def test_the_log_is_taken_away(logged, upstream):
    g = logged(models=one(upstream()))
    g.ask(post(chat()))
    hand_over(g, None)
    g.publish()
    assert len(g.lines(1)) == 1
    assert g.ask(post(chat())).status == 200
    assert g.counters.all()["log_lines"] == 1


def test_a_full_disk_costs_lines_and_nothing_else(gateway, upstream):
    g = gateway(workers=1, models=one(upstream()))
    hand_over(g, os.open("/dev/full", os.O_WRONLY))
    g.publish()
    with g.wire() as w:
        for _ in range(1200):
            assert w.ask(post(chat())).status == 200
    # What is kept for better times has an end; the rest is counted.
    wait_until(lambda: g.counters.all()["log_lost"] > 0, 10 * SLOW, "lines are lost, and counted")
    assert g.counters.all()["log_lines"] == 0
    assert g.rss() < 64 << 20 or SLOW > 1


def test_a_stopped_reader_costs_lines_and_nothing_else(gateway, upstream):
    g = gateway(workers=1, models=one(upstream()))
    read_end, write_end = os.pipe2(os.O_NONBLOCK)
    hand_over(g, write_end)
    g.publish()
    with g.wire() as w:
        for _ in range(1200):
            assert w.ask(post(chat())).status == 200
    wait_until(lambda: g.counters.all()["log_lost"] > 0, 10 * SLOW, "lines are lost, and counted")
    got = b""

    def drained():
        nonlocal got
        try:
            got += os.read(read_end, 1 << 20)
        except BlockingIOError:
            pass
        c = g.counters.all()
        return c["log_lines"] + c["log_lost"] == 1200 and got.count(b"\n") == c["log_lines"]
    wait_until(drained, 20 * SLOW, "the reader reads again and gets what was kept")
    os.close(read_end)
    for line in got.splitlines():
        assert list(json.loads(line)) == FIELDS  # none is torn


# --- adding up --------------------------------------------------------------------------------


def test_lines_and_counters_add_up(logged, upstream):
    def script(request, conn):
        if request.text() == "cut":
            conn.send(event_stream() + chunked(b"data: 1\n\n", last=False))
            conn.close()
        elif request.text() == "500":
            conn.send(answer({}, 500))
        else:
            conn.send(answer({"a": "b"}))
    u = upstream(script)
    g = logged(models=one(u), workers=2)
    for text in ["a", "cut", "500", "b", "cut"] * 4:
        g.ask(post(chat(text, stream=text == "cut")))
        g.ask(head("GET", "/nothing"), "GET")
    g.settled()
    lines = g.lines(40)
    c, r = g.counters.all(), g.replica(u)
    by = {o: sum(n["outcome"] == o for n in lines)
          for o in ("finished", "failed", "truncated", "cancelled", "refused")}
    assert len(lines) == 40 == c["requests"]
    assert by["finished"] == r["finished"] and by["truncated"] == r["truncated"]
    assert by["failed"] == r["failed"] and by["cancelled"] == r["cancelled"] == 0
    assert by["refused"] == c["errors_4xx"] == 20
    assert c["requests"] == c["answered"] + by["truncated"] + by["cancelled"]
