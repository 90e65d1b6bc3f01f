"""The command line against a scripted manager: what it asks, what it shows, how it exits."""
import json
import os
import pty
import re
import signal
import subprocess
import threading

import pytest

from harness import SLOW, binary, chunked, event_stream, wait_until
from harness.upstream import answer

RECEIPT = {
    "number": 3, "model": "hy-mt", "kind": "deploy", "from": "v1", "to": "v2", "result": "done",
    "reason": "", "began": "2026-01-31T12:00:00.000Z",
    "phases_ms": {"starting": 812, "warming": 95, "switching": 0, "draining": 240}, "switch_us": 412,
    "epoch": 7, "workers": 2, "requests": 2841, "finished": 2838, "failed": 0, "truncated": 0,
    "cancelled": 3, "held": 0, "retried": 0, "in_flight_at_switch": 17, "drained": 17,
    "started_on_old_after_switch": 0}


def event(name, value):
    return chunked(f"event: {name}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n".encode(),
                   last=False)


def error(status, message):
    return answer({"error": {"message": message, "type": "x", "param": None, "code": None}}, status)


class Manager:
    """Answers by path; `events` are what an operation says."""

    def __init__(self, upstream):
        self.events, self.answers = [], {}
        self.fake = upstream(self.script, unix=True, name="manager")
        self.path = self.fake.address.removeprefix("unix:")

    def script(self, request, conn):
        path = request.target.split("?")[0]
        if path.endswith("/events"):
            conn.send(event_stream())
            for e in self.events:
                e(conn) if callable(e) else conn.send(e)
            conn.send(b"0\r\n\r\n")
        else:
            conn.send(self.answers.get(path) or error(404, f"no {path} here"))

    @property
    def requests(self):
        return [f"{r.method} {r.target} {r.body.decode()}".strip() for r in self.fake.requests]


@pytest.fixture
def manager(upstream):
    m = Manager(upstream)
    m.answers["/admin/v1/deploy"] = answer({"operation": 5, "model": "hy-mt", "version": "v2"}, 202)
    return m


@pytest.fixture
def segue(box, manager):
    def run(*words, env=None, **more):
        return subprocess.run([binary("segue"), *words], cwd=box.folder, text=True,
                              env={**box.env, "SEGUE_SOCKET": manager.path, **(env or {})},
                              capture_output=True, timeout=60 * SLOW, **more)
    return run


def progress(state, detail=""):
    return event("progress", {"state": state, "detail": detail})


def end(ok=True, error=None, **receipt):
    return event("end", {"ok": ok, "error": error, "receipt": {**RECEIPT, **receipt}})


# --- deploy ---------------------------------------------------------------------------------


def test_deploy_shows_its_steps_and_the_receipt(box, manager, segue):
    manager.events = [progress("starting", "0 of 1 replicas healthy"), progress("warming"),
                      progress("draining", "17 left"), progress("draining", "3 left"), end()]
    (box.folder / "v2.gguf").touch()
    r = segue("deploy", "hy-mt", "v2.gguf", "--version", "v2")
    assert r.returncode == 0, r.stderr
    assert re.findall(r"s  (.*)", r.stderr) == [
        "starting: 0 of 1 replicas healthy", "warming", "draining: 17 left", "draining: 3 left"]
    assert "hy-mt: deploy v1 -> v2 done in 1.1 s" in r.stdout
    assert "412 us until the last of 2 workers" in r.stdout
    assert "2,841: 2,838 finished, 0 failed, 0 truncated" in r.stdout
    assert "switching <1 ms" in r.stdout
    verb, target, body = manager.requests[0].split(" ", 2)
    assert (verb, target) == ("POST", "/admin/v1/deploy")
    assert json.loads(body) == {"model": "hy-mt", "path": str(box.folder / "v2.gguf"),
                                "version": "v2"}
    assert manager.requests[1] == "GET /admin/v1/operations/5/events"


def test_a_failed_deploy_says_why(manager, segue):
    manager.events = [progress("starting"), event("end", {
        "ok": False, "error": "hy-mt@v2#0 died with signal 6; its last words:\nGGML_ASSERT\x1b[2J",
        "receipt": None})]
    r = segue("deploy", "hy-mt", "v2.gguf")
    assert r.returncode == 1
    assert r.stdout == ""
    assert r.stderr.endswith("segue: the deploy of v2 to hy-mt failed: hy-mt@v2#0 died with signal 6; "
                             "its last words:\n  GGML_ASSERT?[2J\n")


def test_a_rolled_back_deploy_exits_4(manager, segue):
    manager.events = [progress("settling"), end(False, "12 of 100 answers failed",
                                                result="rolled back", reason="12 of 100")]
    r = segue("deploy", "hy-mt", "v2.gguf")
    assert r.returncode == 4
    assert "was rolled back: 12 of 100 answers failed" in r.stderr
    assert "deploy v1 -> v2 rolled back" in r.stdout
    assert json.loads(segue("deploy", "hy-mt", "v2.gguf", "--json").stdout)["receipt"]["number"] == 3


def test_the_manager_goes_away(manager, segue):
    manager.events = [progress("warming"), lambda conn: conn.close()]
    r = segue("deploy", "hy-mt", "v2.gguf")
    assert r.returncode == 3
    assert "went away while the deploy of v2 to hy-mt was warming" in r.stderr


def test_not_waiting(manager, segue):
    r = segue("deploy", "hy-mt", "v2.gguf", "--no-wait")
    assert r.returncode == 0 and "operation 5" in r.stdout
    assert json.loads(segue("--json", "deploy", "hy-mt", "x", "--no-wait").stdout)["operation"] == 5
    assert all("/events" not in r for r in manager.requests)


def test_interrupt_leaves_the_update_alone(box, manager):
    begun, release = threading.Event(), threading.Event()
    manager.events = [progress("starting"), lambda conn: begun.set() or release.wait(60)]
    p = subprocess.Popen([binary("segue"), "deploy", "hy-mt", "x.gguf", "-S", manager.path],
                         cwd=box.folder, env=box.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                         text=True)
    try:
        assert begun.wait(30 * SLOW)
        assert p.stderr.readline().endswith("starting\n")
        p.send_signal(signal.SIGINT)
        out, said = p.communicate(timeout=30 * SLOW)
    finally:
        release.set()
        p.kill()
    assert p.returncode == 130 and out == ""
    assert "goes on without this terminal; `segue status -w` shows it" in said
    assert len(manager.requests) == 2  # nothing was asked to stop


# --- a terminal -----------------------------------------------------------------------------


def on_terminal(box, manager, *words, **env):
    """Runs it with a terminal as its output; the text with what it drew."""
    leader, follower = pty.openpty()
    p = subprocess.Popen([binary("segue"), *words, "-S", manager.path], cwd=box.folder,
                         env={**box.env, "TERM": "xterm", **env}, stdin=subprocess.DEVNULL,
                         stdout=follower, stderr=follower)
    os.close(follower)
    text = b""
    try:
        while data := os.read(leader, 4096):
            text += data
    except OSError:  # EIO: the last holder of the other end is gone
        pass
    os.close(leader)
    return p.wait(30 * SLOW), text.decode()


def test_a_terminal_gets_one_line_for_a_step(box, manager):
    manager.events = [progress("starting", "a" * 300), progress("warming", "模型" * 100), end()]
    code, text = on_terminal(box, manager, "deploy", "hy-mt", "x.gguf")
    assert code == 0
    assert "\033[32mstarting" in text and "\033[32mwarming" in text
    for line in text.split("\r\033[K")[1:]:
        plain = re.sub(r"\033\[[\d;]*m", "", line).split("\r\n")[0]
        assert sum(2 if "一" <= c <= "龥" else 1 for c in plain) <= 80, plain


def test_no_color(box, manager):
    manager.events = [progress("starting"), end()]
    code, text = on_terminal(box, manager, "deploy", "hy-mt", "x.gguf", NO_COLOR="1")
    assert code == 0
    assert not re.search(r"\033\[[\d;]*m", text)


# --- the others -----------------------------------------------------------------------------


def test_refusals(manager, segue):
    manager.answers["/admin/v1/switch"] = error(404, "hy-mt has no version 'v9'; it has: v1, v2")
    r = segue("switch", "hy-mt", "v9")
    assert r.returncode == 1 and r.stdout == ""
    assert r.stderr == "segue: hy-mt has no version 'v9'; it has: v1, v2\n"
    r = segue("switch", "hy-mt", "v9", "--json")
    assert r.returncode == 1
    assert json.loads(r.stdout)["error"]["message"].startswith("hy-mt has no version")


def test_switch_and_rollback(manager, segue):
    done = answer({"model": "hy-mt", "from": "v1", "to": "v2", "epoch": 8, "switch_us": 412,
                   "receipt": 4})
    manager.answers |= {"/admin/v1/switch": done, "/admin/v1/rollback": done}
    assert segue("switch", "hy-mt", "v2").stdout == "hy-mt: v1 -> v2 in 412 us (epoch 8, receipt 4)\n"
    assert json.loads(segue("--json", "rollback", "hy-mt").stdout)["switch_us"] == 412
    assert manager.requests == ['POST /admin/v1/switch {"model":"hy-mt","version":"v2"}',
                                'POST /admin/v1/rollback {"model":"hy-mt"}']


def test_names_are_encoded(manager, segue):
    manager.answers["/admin/v1/logs"] = answer({"replica": "x", "text": "one\ntwo"})
    assert segue("logs", "hy-mt@v1#1", "-n", "7").stdout == "one\ntwo\n"
    assert segue("logs", "hy-mt@v1").returncode == 0
    assert segue("logs", "a&b=模").returncode == 0
    assert manager.requests == ["GET /admin/v1/logs?replica=hy-mt%40v1%231&lines=7",
                                "GET /admin/v1/logs?replica=hy-mt%40v1%230&lines=50",
                                "GET /admin/v1/logs?replica=a%26b%3D%E6%A8%A1%230&lines=50"]


def test_status(manager, segue):
    manager.answers["/admin/v1/status"] = answer({
        "version": "0.1.0", "pid": 1, "since": "2026-01-31T12:00:00.000Z",
        "gateway": {"pid": 2, "workers": 2, "epoch": 7, "listen": ["127.0.0.1:8080"]},
        "models": [{"name": "翻译", "serving": "v1", "rollout": {
            "kind": "deploy", "from": "v1", "to": "v2", "state": "draining", "state_ms": 1500,
            "reason": ""}, "versions": [
            {"name": "v1", "engine": "builtin", "source": "/m/v1.gguf", "share": 1, "state": "serving",
             "reason": "", "counters": {"finished": 12345, "in_flight": 3},
             "replicas": [{"name": "翻译@v1#0", "state": "down", "reason": "killed by signal 9"}]},
            {"name": "v2", "engine": "openai", "source": "http://a", "share": 0, "state": "failed",
             "reason": "no answer", "counters": {}, "replicas": []}]}]})
    r = segue("status")
    assert r.returncode == 0
    lines = r.stdout.splitlines()
    assert lines[1] == "gateway 2, 2 workers, epoch 7, at http://127.0.0.1:8080"
    assert lines[4].split() == ["翻译", "v1", "serving", "100%", "0/1", "3", "-", "12,345", "0", "0",
                                "builtin", "/m/v1.gguf"]
    assert lines[6:] == ["翻译: deploy v1 -> v2 is draining for 1.5 s",
                         "翻译@v1#0: killed by signal 9", "翻译@v2: no answer"]
    assert json.loads(segue("status", "--json").stdout)["pid"] == 1


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"<html>"])
def test_a_stranger_at_the_socket(manager, segue, body):
    manager.answers["/admin/v1/status"] = answer(body)
    r = segue("status")
    assert r.returncode == 1 and "not a JSON object" in r.stderr


def test_a_full_disk_is_noticed(manager, segue):
    with open("/dev/full", "w") as full:
        r = subprocess.run([binary("segue"), "config", "keys"], stdout=full, stderr=subprocess.PIPE,
                           text=True)
    assert r.returncode == 1 and "No space left" in r.stderr


# --- translate ------------------------------------------------------------------------------


def chat(*pieces, tail=b"data: [DONE]\n\n"):
    out = event_stream("X-Segue-Version: m@v1")
    for p in pieces:
        out += chunked(b"data: " + json.dumps({"choices": [{"delta": {"content": p}}]}).encode()
                       + b"\n\n", last=False)
    return out + chunked(tail) if tail else out + b"0\r\n\r\n"


MODELS = answer({"object": "list", "data": [{"id": "m"}, {"id": "m@v1"}]})


@pytest.fixture
def front(upstream):
    """A scripted gateway."""
    answers = {"/v1/models": MODELS}
    fake = upstream(lambda request, conn: conn.send(answers[request.target]), name="front")
    fake.answers = answers
    return fake


def test_translate(manager, segue, front):
    front.answers["/v1/chat/completions"] = chat("Hello, ", "世界")
    manager.answers["/admin/v1/status"] = answer({"gateway": {"listen": [front.address]}})
    r = segue("translate", "你好", "--to", "en", "-v")
    assert r.returncode == 0 and r.stdout == "Hello, 世界\n"
    assert r.stderr.startswith("m@v1 ")
    body = front.requests[-1].json()
    assert body["model"] == "m" and body["stream"] is True
    assert body["messages"][0]["content"].startswith("将以下文本翻译为英语，")
    r = segue("translate", "-", "--to", "German", "--model", "other", "--json", "-a", front.address,
              input="Good day\n")
    assert json.loads(r.stdout) | {"seconds": 0} == {"text": "Hello, 世界", "version": "m@v1",
                                                     "seconds": 0}
    assert front.requests[-1].json()["messages"][0]["content"] == (
        "Translate the following segment into German, without additional explanation.\n\nGood day")


@pytest.mark.parametrize("reply, say", [
    (error(503, "no replica of m is ready"), "no replica of m is ready"),
    (chat("half ", tail=b'data: {"error":{"message":"out of memory"}}\n\n'), "out of memory"),
    (chat("half ", tail=None), "the answer was cut before its end"),
], ids=["refused", "error in the stream", "no end"])
def test_translate_fails_aloud(segue, front, reply, say):
    front.answers["/v1/chat/completions"] = reply
    r = segue("translate", "hello", "--to", "fr", "--address", front.address)
    assert r.returncode == 1
    assert say in r.stderr


def test_translate_asks_which_model(segue, front):
    front.answers["/v1/models"] = answer({"data": [{"id": "a"}, {"id": "b"}]})
    r = segue("translate", "hello", "--to", "fr", "--address", front.address)
    assert r.returncode == 2 and "--model is one of a, b" in r.stderr


def test_nobody_there(box, segue):
    gone = str(box.folder / "nobody.sock")
    for words in (["status"], ["deploy", "a", "b"], ["translate", "a", "--to", "fr"]):
        r = segue(*words, "--socket", gone)
        assert r.returncode == 3 and gone in r.stderr and "segue serve" in r.stderr
    wait_until(lambda: segue("translate", "a", "--to", "fr", "-a", "127.0.0.1:1").returncode == 3)
