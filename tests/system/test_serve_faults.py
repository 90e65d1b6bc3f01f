"""Engine, gateway and manager die at any moment; bad versions never take over. FAULTS.md by number."""
import json
import os
import shutil
import threading
import time

import pytest

from harness import (MODELS, SLOW, Wire, builtin, chat, command, head, openai, post, wait_until)

pytestmark = pytest.mark.whole

V2 = MODELS / "tiny-mt-v2.gguf"
QUICK = {"drain": "30s", "settle_requests": 0}


def fake_model(*args, ready=None, **more):
    return {"hy-mt": {"serve": "v1", "update": QUICK, "ready": ready or {},
                      "versions": {"v1": command(*args), **more}}}


def ask(s, text="x", **more):
    return s.ask(post(chat(text, model="hy-mt", **more)))


def answered(s):
    a = ask(s)
    return a.status == 200 and a.complete


def replica(s, version="v1"):
    found = s.replicas(version)
    return found[0] if found else {"pid": 0, "state": "none"}


# --- the engine ----------------------------------------------------------------------------------

def test_A1_engine_killed_idle_comes_back_and_nobody_notices(segue):
    s = segue({"hy-mt": {"serve": "v1", "update": QUICK, "versions": {"v1": builtin()}}})
    for _ in range(2):
        old = s.kill9("engine")
        a = ask(s)
        assert a.status == 200 and a.complete, a
        assert replica(s)["pid"] not in (0, old)
    wait_until(lambda: replica(s)["state"] == "ready", 20)
    assert replica(s)["restarts"] == 2


def test_A2_engine_killed_before_the_first_byte_the_request_succeeds(segue):
    s = segue(fake_model("--first", "0.8", "--answer", "patience pays"))
    w = s.wire().send(post(chat("x", model="hy-mt")))
    wait_until(lambda: s.version("v1")["counters"]["in_flight"] == 1, 10)
    s.kill9("engine")
    a = w.answer()
    assert a.status == 200 and a.json()["choices"][0]["message"]["content"] == "patience pays"
    counters = s.version("v1")["counters"]
    assert counters["retried"] >= 1 and counters["failed"] == 0
    w.close()


def test_A1_engine_killed_in_the_stream_is_a_visible_cut(segue):
    s = segue(fake_model("--tokens", "200"))
    s.tell("v1", delay=0.05)
    wires = [s.wire().send(post(chat("x", model="hy-mt", stream=True))) for _ in range(10)]
    heads = [w.head() for w in wires]
    s.kill9("engine")
    began = time.monotonic()
    for w, a in zip(wires, heads):
        w.body(a)
        assert not a.complete and "[DONE]" not in a.events()
        assert json.loads(a.events()[-1])["error"]["message"]
        w.close()
    assert time.monotonic() - began < 2 * SLOW
    wait_until(lambda: answered(s), 30)
    counters = s.version("v1")["counters"]
    assert (counters["truncated"], counters["in_flight"]) == (10, 0)


def test_A12_children_of_a_killed_engine_are_ended(segue, box):
    s = segue(fake_model("--children", "3"))

    def sleepers():
        return [p for p in box.processes()
                if b"/bin/sleep" in open(f"/proc/{p}/cmdline", "rb").read()]
    first = set(sleepers())
    assert len(first) == 3
    s.kill9("engine")
    wait_until(lambda: not first & set(sleepers()), 20, "the orphans are gone")
    wait_until(lambda: replica(s)["state"] == "ready", 30)
    s.stop()
    assert sleepers() == []


def test_A11_an_engine_that_ignores_SIGTERM_is_killed(segue, box):
    s = segue(fake_model("--ignore-term"))
    s.stop(40)
    assert box.processes() == []


def test_A13_a_chattering_engine_is_no_burden(segue):
    s = segue(fake_model("--chatter", "20000000", "--one-line"))
    for _ in range(20):
        assert answered(s)
    size = (s.folder / "run" / "log").stat
    total = sum(f.stat().st_size for f in (s.folder / "run" / "log").iterdir())
    assert total < 200 << 20, (total, size)
    assert s.status()["rss_bytes"] < 400 << 20


def test_A5_engine_of_somebody_else_goes_and_comes_back(segue, fake):
    e = fake(name="served")
    s = segue({"hy-mt": {"serve": "v1", "hold": "20s", "update": QUICK,
                         "versions": {"v1": openai(e, served_model_name="served")}}})
    assert answered(s)
    e.process.kill9()
    w = s.wire().send(post(chat("x", model="hy-mt")))
    wait_until(lambda: s.status()["counters"]["held"] == 1, 10)
    e.start(e.port)
    assert w.answer().status == 200
    w.close()


# --- the gateway -----------------------------------------------------------------------------------

def test_E3_gateway_killed_not_one_connection_is_refused(segue):
    """It is back in under 200 ms; what is asked meanwhile waits in the listening sockets."""
    s = segue({"hy-mt": {"serve": "v1", "versions": {"v1": command()}}})
    address, stop, wrong, waits = s.address, threading.Event(), [], []

    def knock():
        while not stop.is_set():
            began = time.monotonic()
            try:
                with Wire(address) as w:
                    a = w.ask(head("GET", "/health"))
                    if a.status == 200:
                        waits.append((began, time.monotonic() - began))
            except ConnectionRefusedError as e:
                wrong.append(repr(e))
            except (ConnectionResetError, BrokenPipeError, EOFError):
                pass  # it was being answered by the gateway that was killed
    threads = [threading.Thread(target=knock) for _ in range(4)]
    for t in threads:
        t.start()
    back = []
    for _ in range(5):
        old = s.gateway_pid()
        killed = time.monotonic()
        os.kill(old, 9)
        wait_until(lambda: any(began > killed for began, _ in list(waits)), 20)
        back.append(min(b + w for b, w in list(waits) if b > killed) - killed)
        wait_until(lambda: s.status()["gateway"]["pid"] not in (0, old)
                   and s.status()["gateway"]["state"] == "up", 20)
    stop.set()
    for t in threads:
        t.join(30)
    assert not wrong, wrong[:3]
    print("back after", [f"{b * 1000:.0f} ms" for b in back])
    assert min(back) < 0.2 * SLOW and max(back) < 3 * SLOW, back
    assert answered(s) and s.status()["gateway"]["restarts"] == 5


def test_E3_gateway_killed_its_engines_and_counters_stay(segue):
    s = segue(fake_model("--tokens", "100"))
    s.tell("v1", delay=0.05)
    pids = s.pids()
    w = s.wire().send(post(chat("x", model="hy-mt", stream=True)))
    w.head()
    before = s.version("v1")["counters"]
    s.kill9("gateway")
    wait_until(lambda: answered_short(s), 20)
    after = s.pids()
    assert after["v1"] == pids["v1"] and after["manager"] == pids["manager"]
    assert after["gateway"] != pids["gateway"]
    counters = s.version("v1")["counters"]
    assert counters["truncated"] == before["truncated"] + 1
    assert counters["started"] >= before["started"]
    w.close()


def answered_short(s):
    return s.ask(head("GET", "/readiness")).status == 200


# --- the manager -----------------------------------------------------------------------------------

def test_E3_manager_killed_the_gateway_goes_on_and_the_next_adopts_everything(segue, load):
    s = segue({"hy-mt": {"serve": "v1", "update": QUICK,
                         "versions": {"v1": builtin(), "v2": builtin("tiny-mt-v2.gguf")}}})
    s.cli("switch", "hy-mt", "v2")
    traffic = load(s.address, connections=8, streams=0.5, sentences=MODELS / "golden.zh-en.tsv")
    traffic.wait_ok(20)
    before = s.pids()
    for _ in range(2):
        s.kill9("manager")
        traffic.wait_ok(traffic.ok() + 30)
        s.start()
        after = s.pids()
        assert after["gateway"] == before["gateway"]
        assert (after["v1"], after["v2"]) == (before["v1"], before["v2"])
        assert after["manager"] != before["manager"] and s.serving() == "v2"
    assert all(r["restarts"] == 0 for v in ("v1", "v2") for r in s.replicas(v))
    began = time.monotonic_ns()
    s.cli("rollback", "hy-mt")
    traffic.switched("v1", began)
    traffic.wait_ok(traffic.ok() + 20)
    traffic.finish()
    assert s.cli("versions", "--json").json()


def test_E3_manager_killed_while_a_version_starts(segue):
    s = segue(fake_model(v2=command("--loading", "60")))
    threading.Thread(target=lambda: s.cli("switch", "hy-mt", "v2", expect=None), daemon=True).start()
    wait_until(lambda: (s.model()["rollout"] or {}).get("state") == "starting"
               and replica(s, "v2")["pid"], 20)
    pids = s.pids()
    s.kill9("manager")
    assert answered_after_manager(s)
    s.start()
    assert s.serving() == "v1" and s.pids()["v1"] == pids["v1"]
    wait_until(lambda: s.model()["rollout"] is None and s.replicas("v2") == [], 30,
               "the new version is stopped")
    newest = s.admin("GET", "/admin/v1/rollouts?model=hy-mt")[1]["rollouts"][0]
    assert newest["state"] == "failed" or newest.get("result") == "failed", newest
    assert "restart" in json.dumps(newest)


def answered_after_manager(s):
    """Without the admin API: by the address that was known."""
    host, port = s.known
    with Wire((host, port)) as w:
        return w.ask(post(chat("x", model="hy-mt"))).status == 200


@pytest.fixture
def segue(segue):
    """Remembers the address, for when there is no manager to ask."""
    def make(models, **more):
        s = segue(models, **more)
        s.known = s.address
        return s
    return make


def test_E3_manager_killed_while_the_old_version_drains(segue):
    s = segue(fake_model("--tokens", "40", v2=command("--answer", "new")))
    s.tell("v1", delay=0.1)
    w = s.wire().send(post(chat("x", model="hy-mt", stream=True)))
    a = w.head()
    threading.Thread(target=lambda: s.cli("switch", "hy-mt", "v2", expect=None), daemon=True).start()
    wait_until(lambda: s.serving() == "v2", 20)
    s.kill9("manager")
    s.start()
    assert s.serving() == "v2", "what was promised stays"
    assert ask(s).get("x-segue-version") == "hy-mt@v2"
    w.body(a)
    assert a.complete and a.events()[-1] == "[DONE]"
    wait_until(lambda: s.model()["rollout"] is None, 30)
    assert s.receipt()["to"] == "v2"
    w.close()


def test_E3_everything_killed_at_once_comes_back_as_promised(segue, box):
    s = segue(fake_model(v2=command("--answer", "new")))
    s.cli("switch", "hy-mt", "v2")
    pids = s.pids()
    for pid in (pids["manager"], pids["gateway"], *pids["v1"], *pids["v2"]):
        os.kill(pid, 9)
    s.process.expect.add(-9)
    s.process.wait(10)
    s.start()
    assert s.serving() == "v2" and ask(s).get("x-segue-version") == "hy-mt@v2"


def test_E3_gateway_killed_while_there_is_no_manager(segue):
    s = segue(fake_model())
    pids = s.pids()
    s.kill9("manager")
    os.kill(pids["gateway"], 9)
    s.start()
    assert answered(s) and s.pids()["v1"] == pids["v1"], "the engine was adopted"


def test_E3_engine_killed_while_there_is_no_manager(segue):
    s = segue(fake_model())
    pids = s.pids()
    s.kill9("manager")
    os.kill(pids["v1"][0], 9)
    s.start()
    assert answered(s) and s.pids()["gateway"] == pids["gateway"]
    assert s.pids()["v1"] != pids["v1"]


# --- bad versions ----------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def bad_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.gguf").touch()
    whole = V2.read_bytes()
    (folder / "truncated.gguf").write_bytes(whole[:len(whole) * 2 // 3])
    (folder / "head-only.gguf").write_bytes(whole[:2000])
    (folder / "text.gguf").write_text("this is not a model\n" * 100)
    (folder / "zeros.gguf").write_bytes(bytes(1 << 20))
    broken = bytearray(whole)
    broken[200:4000] = os.urandom(3800)
    (folder / "garbled.gguf").write_bytes(broken)
    (folder / "folder").mkdir()
    return folder


@pytest.mark.parametrize("name", ["missing.gguf", "folder", "empty.gguf", "truncated.gguf",
                                  "head-only.gguf", "text.gguf", "zeros.gguf", "garbled.gguf"])
def test_A6_a_bad_file_is_refused_with_a_reason_and_v1_goes_on(segue, bad_files, name):
    s = segue({"hy-mt": {"serve": "v1", "update": QUICK, "versions": {"v1": builtin()}}})
    pid = replica(s)["pid"]
    done = s.cli("deploy", "hy-mt", bad_files / name, expect=1)
    said = done.err + done.out
    assert name in said or name.split(".")[0] in said, done
    assert len(done.err.strip().splitlines()[-1]) > 20, "a sentence that says why"
    assert s.serving() == "v1" and replica(s)["pid"] == pid
    a = ask(s)
    assert a.status == 200 and a.get("x-segue-version") == "hy-mt@v1"
    # The next, good one is not hindered.
    if name in ("truncated.gguf", "missing.gguf"):
        s.cli("deploy", "hy-mt", V2)
        assert s.serving() != "v1"


def bad_version(segue, *args, start_timeout="20s", **more):
    s = segue(fake_model("--answer", "Hello there", ready={"start_timeout": start_timeout,
                                                           "timeout": "2s", **more},
                         v2=command(*args)))
    done = s.cli("switch", "hy-mt", "v2", expect=1, timeout=100)
    assert s.serving() == "v1"
    a = ask(s)
    assert a.status == 200 and a.get("x-segue-version") == "hy-mt@v1"
    counters = s.version("v2")["counters"]
    assert counters["started"] == counters["pinned"] == 0, "it never got a request"
    wait_until(lambda: s.replicas("v2") == [], 20, "it is stopped")
    return done.err + done.out


def test_A6_an_engine_that_dies_at_its_start(segue):
    said = bad_version(segue, "--exit-after", "0", "--exit-code", "7")
    assert "7" in said and "as told" in said, "its exit status and its last words: " + said


def test_A6_a_program_that_does_not_exist(segue):
    s = segue(fake_model(v2={"engine": "command", "run": ["/no/such/program", "{port}"]}))
    done = s.cli("switch", "hy-mt", "v2", expect=1)
    assert "/no/such/program" in done.err + done.out and s.serving() == "v1"


def test_A7_an_engine_that_loads_for_ever(segue):
    said = bad_version(segue, "--loading", "600", start_timeout="2s")
    assert "start_timeout" in said, said


@pytest.mark.parametrize("mode", ["500", "empty", "repeat", "not-json", "half-json", "hang",
                                  "garbage", "cut", "short", "101"])
def test_A8_health_alone_proves_nothing(segue, mode):
    """/health is 200, but the known question gets no good answer."""
    said = bad_version(segue, "--mode", mode, start_timeout="3s")
    assert len(said) > 40, said


def test_A8_an_answer_that_is_not_the_expected_one(segue):
    said = bad_version(segue, "--answer", "Goodbye", start_timeout="3s", expect="hello")
    assert "Goodbye" in said and "hello" in said, said


def test_A9_another_model_behind_the_port(segue, fake):
    e = fake(name="stranger")
    s = segue(fake_model(ready={"start_timeout": "3s"},
                         v2=openai(e, served_model_name="expected")))
    done = s.cli("switch", "hy-mt", "v2", expect=1)
    assert "stranger" in done.err + done.out and s.serving() == "v1"


def test_a_crash_loop_is_noticed_and_named(segue):
    """The serving version's engine dies again and again: restarts are paced, and it is said."""
    s = segue(fake_model("--exit-after", "0.5", "--exit-code", "9"))
    wait_until(lambda: replica(s)["restarts"] >= 3, 60)
    told = json.dumps(replica(s))
    assert "9" in told
    restarts, at = replica(s)["restarts"], time.monotonic()
    time.sleep(2)
    assert replica(s)["restarts"] - restarts <= 4, (time.monotonic() - at)
    assert s.cli("status").out


def deployed_copy(segue, box):
    """v2 serves, from a file of its own; v1 is the spare."""
    s = segue({"hy-mt": {"serve": "v1", "update": QUICK, "versions": {"v1": builtin()}}})
    copy = box.folder / "copy.gguf"
    shutil.copyfile(V2, copy)
    s.cli("deploy", "hy-mt", copy)
    assert s.serving() == "v2"
    return s, copy


def exchange(file, by):
    """Another file in its place; the engine that runs keeps the old one."""
    shutil.copyfile(by, f"{file}.new")
    os.replace(f"{file}.new", file)


def test_a_restarted_engine_never_takes_another_file_than_was_deployed(segue, box):
    s, copy = deployed_copy(segue, box)
    exchange(copy, MODELS / "tiny-mt-v1.gguf")
    s.kill9("engine")
    wait_until(lambda: replica(s, "v2")["state"] == "failed", 60)
    assert "is not the file any more that was deployed" in s.cli("status").out
    assert ask(s).status == 503
    exchange(copy, V2)
    assert "started again" in s.cli("switch", "hy-mt", "v2").out
    wait_until(lambda: replica(s, "v2")["state"] == "ready", 20)
    assert answered(s)
    assert "v2 serves already" in s.cli("switch", "hy-mt", "v2").out


def test_a_start_without_the_file_that_serves_still_takes_orders(segue, box):
    s, copy = deployed_copy(segue, box)
    s.cli("stop", "--engines")
    s.process.wait()
    copy.unlink()
    s.start(ready=False)
    wait_until(lambda: s.socket.exists() and s.cli("status", expect=None).status == 0, 20)
    assert "cannot find the model file" in s.cli("status").out
    s.cli("rollback", "hy-mt")
    assert s.serving() == "v1" and answered(s)


# --- switches to what is not there ----------------------------------------------------------------

def test_deploy_refuses_what_cannot_be(segue, box):
    s = segue({"hy-mt": {"serve": "v1", "update": QUICK, "versions": {"v1": builtin()}}})
    s.cli("deploy", "nobody", V2, expect=1)
    s.cli("deploy", "hy-mt", V2, "--version", "v1", expect=1)
    s.cli("deploy", "hy-mt", V2, "--version", "bad name!", expect=1)
    s.cli("rollback", "hy-mt", expect=1)
    s.cli("switch", "hy-mt", "v1", expect=None)
    assert s.serving() == "v1"
    copy = box.folder / "copy.gguf"
    shutil.copyfile(V2, copy)
    s.cli("deploy", "hy-mt", copy)
    assert s.serving() == "v2"
