"""Start and end of `segue serve`: configuration, ports, locks, state, signals."""
import fcntl
import json
import os
import signal
import socket
import subprocess
import time

import pytest

from harness import SLOW, binary, builtin, chat, command, head, post, wait_until
from harness.segue import Unix

pytestmark = pytest.mark.whole

ONE = {"hy-mt": {"serve": "v1", "versions": {"v1": command()}}}


def serve(box, text, name="segue.yaml"):
    """Runs `segue serve` on a file that should be refused."""
    path = box.folder / name
    path.write_text(text)
    return subprocess.run([binary("segue"), "serve", "-c", str(path)], env=box.env, text=True,
                          cwd=box.folder, capture_output=True, timeout=30 * SLOW)


# name: (file, line:column, words)
BAD = {
    "wrong key": ("listen: 127.0.0.1:0\nmodles:\n  m: {}\n", "2:1", ["modles", "models"]),
    "wrong inner key": ("models:\n  m:\n    versions:\n      v1: { engine: builtin, pth: x }\n",
                        "4:30", ["pth", "path"]),
    "wrong engine": ("models:\n  m:\n    versions:\n      v1: { engine: buildin, path: x }\n",
                     "4:21", ["buildin", "builtin"]),
    "wrong type": ("workers: many\nmodels:\n  m: { versions: { v1: { engine: builtin, path: x } } }\n",
                   "1:10", ["workers"]),
    "serve of what is not there": ("models:\n  m:\n    serve: v9\n    versions:\n"
                                   "      v1: { engine: builtin, path: x }\n", "3:12", ["v9"]),
    "no models": ("listen: 127.0.0.1:0\n", "", ["models"]),
    "no YAML": ("models: [\n", "", []),
    "key twice": ("workers: 1\nworkers: 2\nmodels: {}\n", "2:1", ["workers"]),
    "size in wrong units": ("limits: { body_bytes: 8MB }\nmodels: {}\n", "1:", ["MB"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_wrong_configuration_is_refused_with_its_place(box, name):
    text, place, words = BAD[name]
    done = serve(box, text)
    assert done.returncode == 2, done
    assert f"segue.yaml:{place}" in done.stderr, done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert not (box.folder / "run").exists(), "nothing was started or made"


# name: (what comes before the models, the version, exit status, words)
CHECKED = {
    "byte order mark": ("\ufeff", "engine: openai, url: 'http://127.0.0.1:1'", 0, ""),
    "url of a client": ("", "engine: openai, url: 'http://127.0.0.1:1/v1'", 0, "ends with /v1"),
    "a folder as model": ("", "engine: builtin, path: /tmp", 0, "not a regular file"),
    "metrics among clients": ("listen: 127.0.0.1:1\nmetrics: { listen: 127.0.0.1:1 }\n",
                              "engine: openai, url: 'http://127.0.0.1:1'", 2, "'listen' too"),
}


@pytest.mark.parametrize("name", CHECKED)
def test_what_config_check_says(box, name):
    before, version, status, words = CHECKED[name]
    path = box.folder / "segue.yaml"
    path.write_text(before + "models: { m: { versions: { v1: { " + version + " } } } }\n")
    done = subprocess.run([binary("segue"), "config", "check", str(path), "--json"], env=box.env,
                          text=True, capture_output=True, timeout=30)
    said = json.loads(done.stdout)
    assert (done.returncode, said["ok"]) == (status, status == 0), done
    assert words in " ".join(said["messages"]) and bool(words) == bool(said["messages"]), said


def test_a_missing_configuration(box):
    done = subprocess.run([binary("segue"), "serve", "-c", str(box.folder / "none.yaml")],
                          env=box.env, text=True, capture_output=True, timeout=30)
    assert done.returncode == 2 and "none.yaml" in done.stderr


def test_a_port_in_use_names_its_owner(box, segue):
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = taken.getsockname()[1]
    s = segue(ONE, start=False, listen=f"127.0.0.1:{port}")
    p = s.start(ready=False)
    p.expect = {1}
    assert p.wait(30 * SLOW) == 1
    text = p.text()
    assert str(port) in text and f"pid {os.getpid()}" in text, text
    taken.close()


def test_E4_a_second_manager_is_refused_and_the_first_unaffected(segue):
    s = segue(ONE)
    done = subprocess.run([binary("segue"), "serve", "-c", str(s.config)], env=s.box.env, text=True,
                          cwd=s.folder, capture_output=True, timeout=30 * SLOW)
    assert done.returncode == 1, done
    assert str(s.process.pid) in done.stderr or "run" in done.stderr, done.stderr
    assert s.ask(post(chat("x", model="hy-mt"))).status == 200
    assert s.status()["pid"] == s.process.pid


def test_a_start_right_after_stop_waits_for_the_one_that_ends(segue):
    """`segue stop && segue serve`: stop has answered, and its manager needs a moment yet."""
    s = segue(ONE, start=False)
    (s.folder / "run").mkdir()
    with open(s.folder / "run" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        s.start(ready=False)
        time.sleep(0.3)
        assert s.process.running(), s.process.text()
    s.wait_ready()


def test_E1_sigterm_lets_streams_finish_and_ends_everything(segue, box):
    s = segue({"hy-mt": {"serve": "v1", "versions": {"v1": command("--tokens", "20")}}})
    s.tell("v1", delay=0.1)
    w = s.wire().send(post(chat("x", model="hy-mt", stream=True)))
    a = w.head()
    s.process.signal(signal.SIGTERM)
    w.body(a)
    assert a.complete and a.events()[-1] == "[DONE]"
    assert s.process.wait(30 * SLOW) == 0
    assert box.processes() == []
    w.close()


def test_E1_a_second_signal_ends_at_once(segue, box):
    s = segue({"hy-mt": {"serve": "v1", "versions": {"v1": command("--tokens", "600")}}})
    s.tell("v1", delay=0.1)
    w = s.wire().send(post(chat("x", model="hy-mt", stream=True)))
    w.head()
    s.process.signal(signal.SIGINT)
    wait_until(lambda: s.status()["state"] != "running", 10)
    s.process.signal(signal.SIGINT)
    assert s.process.wait(30 * SLOW) == 0
    wait_until(lambda: box.processes() == [], 10)
    w.close()


def test_stop_command(segue, box):
    s = segue(ONE)
    s.cli("stop")
    assert s.process.wait(30 * SLOW) == 0


def test_a_restart_serves_the_same(segue):
    s = segue({"hy-mt": {"serve": "v1", "versions": {"v1": command("--answer", "one two"),
                                                     "v2": command("--answer", "three four")}}})
    s.cli("switch", "hy-mt", "v2")
    for _ in range(2):
        s.stop()
        s.start()
        assert s.serving() == "v2"
        a = s.ask(post(chat("x", model="hy-mt")))
        assert a.json()["choices"][0]["message"]["content"] == "three four"


@pytest.mark.parametrize("how", ["garbage", "truncated", "empty"])
def test_E5_a_broken_state_file_is_kept_aside_and_said(segue, how):
    s = segue(ONE)
    s.stop()
    stores = [p for p in (s.folder / "run").iterdir()
              if p.is_file() and p.read_bytes()[:15] == b"SQLite format 3"]
    assert len(stores) == 1, stores
    store = stores[0]
    data = store.read_bytes()
    store.write_bytes({"garbage": os.urandom(8192), "truncated": data[:len(data) // 2],
                       "empty": b""}[how])
    for extra in ("-wal", "-shm"):
        (store.parent / (store.name + extra)).unlink(missing_ok=True)
    s.start()
    assert s.serving() == "v1"
    assert s.ask(post(chat("x", model="hy-mt"))).status == 200
    if how != "empty":
        aside = [p for p in store.parent.iterdir() if p.name.startswith(store.name) and p != store
                 and p.suffix not in ("-wal", "-shm")]
        assert store.name in s.process.text() and aside


def test_D6_a_state_folder_that_cannot_be_made(box):
    (box.folder / "file").write_text("")
    done = serve(box, json.dumps({"listen": "127.0.0.1:0", "state": "file/run", "models": ONE}))
    assert done.returncode != 0 and "file/run" in done.stderr, done


def test_E2_reload_with_a_broken_file_changes_nothing(segue):
    s = segue(ONE)
    before = s.pids()
    s.config.write_text("models:\n  hy-mt: { nonsense: 1 }\n")
    s.process.signal(signal.SIGHUP)
    wait_until(lambda: "nonsense" in s.process.text(), 10)
    assert s.pids() == before and s.ask(post(chat("x", model="hy-mt"))).status == 200


def test_E6_the_admin_api_has_its_own_limits(segue):
    s = segue(ONE)

    def code(method, path, body=None, fields=()):
        c = Unix(s.socket, 30)
        try:
            c.request(method, path, body, dict(fields))
            r = c.getresponse()
            value = json.loads(r.read())
            assert value["error"]["message"]
            return r.status
        finally:
            c.close()
    assert code("GET", "/admin/v1/nothing") == 404
    assert code("DELETE", "/admin/v1/status") == 405
    assert code("POST", "/admin/v1/switch", b"not JSON") == 400
    assert code("POST", "/admin/v1/switch", b"{}") == 400
    assert code("POST", "/admin/v1/switch", b'{"model": "hy-mt", "version": 1}') == 400
    assert code("POST", "/admin/v1/switch", b'{"model": "hy-mt", "version": "v1", "x": 1}') == 400
    try:
        assert code("POST", "/admin/v1/switch", b"x" * (32 << 20)) == 413
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused while it was being sent
    # A client that says nothing does not hinder the others.
    silent = [socket.socket(socket.AF_UNIX) for _ in range(20)]
    for c in silent:
        c.connect(str(s.socket))
        c.sendall(b"GET /admin/v1/st")
    assert s.status()["pid"] == s.process.pid
    for c in silent:
        c.close()
    assert oct(os.stat(s.socket).st_mode & 0o777) == "0o600"
    # Not through the public listener.
    assert s.ask(head("GET", "/admin/v1/status")).status == 404


def test_E6_slow_followers_of_operations_are_no_burden(segue):
    s = segue({"hy-mt": {"serve": "v1", "versions": {"v1": command(), "v2": command("--loading", "3")}}})
    followers = []
    for _ in range(10):
        c = socket.socket(socket.AF_UNIX)
        c.connect(str(s.socket))
        c.sendall(b"GET /admin/v1/operations/1/events HTTP/1.1\r\nHost: x\r\n\r\n")
        followers.append(c)
    s.cli("switch", "hy-mt", "v2")
    assert s.serving() == "v2"
    for c in followers:
        c.close()


def test_several_models_and_listeners(segue):
    s = segue({"hy-mt": {"serve": "v1", "versions": {"v1": command("--answer", "from one")}},
               "other": {"serve": "v1", "aliases": ["o"],
                         "versions": {"v1": command("--answer", "from two")}}},
              listen=["127.0.0.1:0", "[::1]:0"])
    assert len(s.status()["gateway"]["listen"]) == 2
    for name, want in (("hy-mt", "from one"), ("other", "from two"), ("o", "from two")):
        a = s.ask(post(chat("x", model=name)))
        assert a.json()["choices"][0]["message"]["content"] == want


def test_several_replicas(segue):
    s = segue({"hy-mt": {"serve": "v1", "versions": {"v1": command(replicas=3)}}})
    wait_until(lambda: [r["state"] for r in s.replicas("v1")] == ["ready"] * 3, 30)
    for i in range(60):
        assert s.ask(post(chat(f"{i}", model="hy-mt"))).status == 200
    assert all(r["counters"]["finished"] > 0 for r in s.replicas("v1"))
    s.kill9("engine")
    for i in range(30):
        assert s.ask(post(chat(f"{i}", model="hy-mt"))).status == 200


def test_builtin_and_the_time_to_be_ready(segue):
    began = time.monotonic()
    s = segue({"hy-mt": {"serve": "v1", "versions": {"v1": builtin()}}})
    assert time.monotonic() - began < 10 * SLOW
    assert s.replicas("v1")[0]["start_ms"] < 10_000 * SLOW
