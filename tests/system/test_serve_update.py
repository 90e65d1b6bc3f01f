"""Updates under load: nothing fails, nothing is cut, a switch is a point in time."""
import json
import threading
import time

import pytest

from harness import (MODELS, SLOW, binary, builtin, chat, command, openai, post, wait_until)

pytestmark = pytest.mark.whole

PROMPT = "将以下文本翻译为英语，注意只需要输出翻译后的结果，不要额外解释：\n\n"
GOLDEN = MODELS / "golden.zh-en.tsv"
QUICK = {"drain": "60s", "settle_requests": 0}


def model(v1, v2=None, **more):
    versions = {"v1": v1, **({"v2": v2} if v2 else {})}
    return {"hy-mt": {"serve": "v1", "update": QUICK, "versions": versions, **more}}


def whole(receipt, **more):
    """The receipt of an update that disturbed nobody."""
    got = {k: receipt[k] for k in ("failed", "truncated", "started_on_old_after_switch")}
    assert got == {"failed": 0, "truncated": 0, "started_on_old_after_switch": 0}, receipt
    for key, value in more.items():
        assert receipt[key] == value, (key, receipt)
    assert receipt["switch_us"] > 0
    return receipt


def test_deploy_under_load_loses_nothing(segue, load):
    s = segue(model(builtin()))
    traffic = load(s.address, connections=16, streams=0.5, sentences=GOLDEN)
    traffic.wait_ok(30)
    done = s.cli("deploy", "hy-mt", MODELS / "tiny-mt-v2.gguf", timeout=200)
    for word in ("starting", "warming", "switching", "draining"):
        assert word in done.err, done
    traffic.wait_ok(traffic.ok() + 60)
    report = traffic.finish()
    assert set(report["versions"]) == {"v1", "v2"}
    assert report["last_version"] == "v2"

    receipt = whole(s.receipt(), kind="deploy", result="done")
    assert (receipt["from"], receipt["to"]) == ("v1", "v2") and receipt["requests"] > 0
    assert receipt["in_flight_at_switch"] == receipt["drained"] > 0
    m = s.model()
    assert (m["serving"], m["previous"]) == ("v2", "v1")
    assert s.replicas("v1")[0]["state"] == "ready", "the spare is kept running"


def test_P3_each_answer_is_word_for_word_the_one_of_its_version(segue, load, box):
    """What each version answers alone is what it must answer under load, around each switch."""
    s = segue(model(builtin(), builtin("tiny-mt-v2.gguf")))
    s.cli("switch", "hy-mt", "v2")
    s.cli("switch", "hy-mt", "v1")
    sentences = [line.split("\t")[0] for line in GOLDEN.read_text().splitlines()[:24]]
    few, expected = box.folder / "few.tsv", box.folder / "expected.tsv"
    few.write_text("".join(f"{text}\t-\n" for text in sentences))
    rows = []
    for version in ("v1", "v2"):
        for text in sentences:
            a = s.ask(post(chat(PROMPT + text, model=f"hy-mt@{version}", temperature=0)))
            said = a.json()["choices"][0]["message"]["content"]
            rows.append(f"{version}\t{text}\t{said}\n")
    expected.write_text("".join(rows))
    assert len({row.split("\t", 1)[1] for row in rows}) > len(sentences), "the versions differ"
    traffic = load(s.address, connections=16, streams=0.5, sentences=few, expect=expected,
                   temperature=0)
    traffic.wait_ok(30)
    hundred_switches(s, traffic, 12)
    report = traffic.finish()
    assert report["causes"]["wrong_text"] == 0 and set(report["versions"]) == {"v1", "v2"}


def test_rollback_is_at_once_and_loses_nothing(segue, load):
    s = segue(model(builtin()))
    s.cli("deploy", "hy-mt", MODELS / "tiny-mt-v2.gguf", "--version", "better")
    traffic = load(s.address, connections=8, streams=0.5, sentences=GOLDEN)
    traffic.wait_ok(20)
    began = time.monotonic_ns()
    done = s.cli("rollback", "hy-mt", "--json")
    traffic.switched("v1", began)
    assert done.json()["to"] == "v1"
    traffic.wait_ok(traffic.ok() + 30)
    report = traffic.finish()
    assert report["first_version"] == "better" and report["last_version"] == "v1"
    wait_until(lambda: s.model()["rollout"] is None, 30)
    whole(s.receipt(), kind="rollback")
    assert s.serving() == "v1"
    s.cli("rollback", "hy-mt")
    assert s.serving() == "better"


def finished(s, version):
    return s.version(version)["counters"]["finished"]


def hundred_switches(s, traffic, times=100):
    """Back and forth by the admin API; every acknowledgement goes to the load's log."""
    worst, serving = 0, "v1"
    for _ in range(times):
        serving = "v2" if serving == "v1" else "v1"
        until = time.monotonic() + 60
        while True:
            began = time.monotonic_ns()
            code, value = s.admin("POST", "/admin/v1/switch", {"model": "hy-mt", "version": serving})
            if code != 409:
                break
            assert time.monotonic() < until, value
            time.sleep(0.005)
        assert code == 200, value
        traffic.switched(serving, began)
        worst = max(worst, value["switch_us"])
        assert (value["to"], s.serving()) == (serving, serving)
        was = finished(s, serving)
        wait_until(lambda: finished(s, serving) > was, 30, f"{serving} has answered")
    return worst


def check_receipts(s, at_least):
    rollouts = s.admin("GET", "/admin/v1/rollouts?model=hy-mt&limit=500")[1]["rollouts"]
    assert len(rollouts) >= at_least
    for number in range(1, at_least + 1):
        code, receipt = s.admin("GET", f"/admin/v1/receipt?model=hy-mt&number={number}")
        assert code == 200, receipt
        whole(receipt, result="done")


def test_100_switches_under_load_with_both_tiny_models(segue, load):
    s = segue(model(builtin(), builtin("tiny-mt-v2.gguf")))
    s.cli("switch", "hy-mt", "v2")
    s.cli("switch", "hy-mt", "v1")
    traffic = load(s.address, connections=32, streams=0.5, sentences=GOLDEN, max_tokens=24)
    traffic.wait_ok(20)
    hundred_switches(s, traffic)
    traffic.wait_ok(traffic.ok() + 30)
    report = traffic.finish()
    assert report["switches"] == 100 and set(report["versions"]) == {"v1", "v2"}
    wait_until(lambda: s.model()["rollout"] is None, 60)
    check_receipts(s, 102)


def test_100_switches_under_load_with_fast_upstreams(segue, load, box):
    urls = {}
    for name in ("v1", "v2"):
        path = box.folder / f"{name}.sock"
        p = box.start(f"answer-{name}", [binary("segue-answer"), "--listen", f"unix:{path}",
                                         "--name", f"hy-mt@{name}", "--tokens", 20])
        p.expect.add(-15)
        urls[name] = f"unix:{path}"
        wait_until(path.exists, 10)
    s = segue(model(openai(urls["v1"], served_model_name="hy-mt@v1"),
                    openai(urls["v2"], served_model_name="hy-mt@v2")))
    traffic = load(s.address, connections=32, streams=0.5)
    traffic.wait_ok(500)
    worst = hundred_switches(s, traffic)
    traffic.wait_ok(traffic.ok() + 500)
    report = traffic.finish()
    assert report["switches"] == 100
    assert worst < 1_000_000 * SLOW
    wait_until(lambda: s.model()["rollout"] is None, 60)
    check_receipts(s, 100)


def test_a_switch_answers_when_it_has_happened(segue, fake):
    """The plainest set-up: two servers that somebody else runs, one file, one command."""
    one, two = fake(name="one"), fake(name="two")
    s = segue(model(openai(one, served_model_name="one"), openai(two, served_model_name="two")))
    for i in range(20):
        to = "v2" if i % 2 == 0 else "v1"
        done = s.cli("switch", "hy-mt", to, "--json")
        assert done.json()["switch_us"] > 0
        a = s.ask(post(chat("x", model="hy-mt")))
        assert a.status == 200 and a.get("x-segue-version") == f"hy-mt@{to}"
        assert a.json()["model"] == ("one" if to == "v1" else "two")
    assert one.settings()["completions"] > 10 and two.settings()["completions"] > 10


def test_a_second_update_at_the_same_time_is_409(segue):
    """A15: one winner."""
    s = segue(model(builtin(), command("--loading", "20"), ready={"start_timeout": "60s"}))
    codes = []
    first = threading.Thread(target=lambda: codes.append(
        s.admin("POST", "/admin/v1/switch", {"model": "hy-mt", "version": "v2"}, timeout=90)))
    first.start()
    wait_until(lambda: s.model()["rollout"], 20)
    code, value = s.admin("POST", "/admin/v1/deploy",
                          {"model": "hy-mt", "path": str(MODELS / "tiny-mt-v2.gguf")})
    assert code == 409 and value["error"]["message"], value
    assert s.ask(post(chat("x", model="hy-mt"))).status == 200
    s.stop()
    first.join(60)


def test_streams_of_the_old_version_finish_while_it_drains(segue):
    s = segue(model(command("--tokens", "30", "--answer", "{name} and more"),
                    command("--answer", "new")))
    s.tell("v1", delay=0.1)
    wires = [s.wire().send(post(chat("x", model="hy-mt", stream=True))) for _ in range(5)]
    heads = [w.head() for w in wires]
    done = threading.Thread(target=lambda: s.cli("switch", "hy-mt", "v2", timeout=120))
    done.start()
    wait_until(lambda: s.serving() == "v2", 30)
    a = s.ask(post(chat("x", model="hy-mt")))
    assert a.get("x-segue-version") == "hy-mt@v2"
    for w, a in zip(wires, heads):
        w.body(a)
        assert a.complete and a.events()[-1] == "[DONE]" and len(a.events()) >= 30
        assert {json.loads(e)["model"] for e in a.events()[:-1]} == {"hy-mt@v1"}
        w.close()
    done.join(60)
    receipt = whole(s.receipt())
    assert receipt["in_flight_at_switch"] == receipt["drained"] == 5


def test_A14_a_drain_that_never_ends_is_cut_at_its_deadline_and_counted(segue):
    s = segue({"hy-mt": {"serve": "v1", "update": {"drain": "1s", "settle_requests": 0,
                                                   "spare": "disk"},
                         "versions": {"v1": command("--tokens", "9", "--answer", "one after another"),
                                      "v2": command("--answer", "new")}}})
    s.tell("v1", mode="stall")
    w = s.wire().send(post(chat("x", model="hy-mt", stream=True)))
    a = w.head()
    s.cli("switch", "hy-mt", "v2", expect=None, timeout=60)
    w.body(a)
    assert not a.complete and "[DONE]" not in a.events()
    wait_until(lambda: s.model()["rollout"] is None, 30)
    w.close()
    receipt = s.receipt()
    print(receipt)
    assert s.serving() == "v2"
    assert (receipt["in_flight_at_switch"], receipt["drained"]) == (1, 0)
    assert receipt["truncated"] + receipt["in_flight_at_end"] == 1


def test_settle_a_version_that_fails_after_the_switch_is_taken_back(segue):
    """A8: too many failed answers while it settles; the command's status is 4."""
    s = segue({"hy-mt": {"serve": "v1",
                         "update": {"settle_requests": 1000, "settle": "60s",
                                    "settle_failures": 0.05},
                         "versions": {"v1": command("--answer", "old"),
                                      "v2": command("--answer", "new")}}})
    result = []
    cli = threading.Thread(target=lambda: result.append(
        s.cli("switch", "hy-mt", "v2", expect=None, timeout=120)))
    cli.start()
    wait_until(lambda: (s.model()["rollout"] or {}).get("state") == "settling", 30 * SLOW)
    assert s.ask(post(chat("x", model="hy-mt"))).get("x-segue-version") == "hy-mt@v2"
    s.tell("v2", mode="500")

    def back():
        s.ask(post(chat("x", model="hy-mt")))
        return s.serving() == "v1"
    wait_until(back, 30 * SLOW, "v1 serves again")
    cli.join(60)
    assert result[0].status == 4, result
    assert "v2" in result[0].err or "v2" in result[0].out
    a = s.ask(post(chat("x", model="hy-mt")))
    assert a.status == 200 and a.get("x-segue-version") == "hy-mt@v1"
    receipt = s.receipt()
    assert receipt["result"] == "rolled back" and receipt["reason"]


def test_receipts_are_kept_and_chained(segue):
    s = segue(model(command("--answer", "a"), command("--answer", "b")))
    for to in ("v2", "v1", "v2"):
        s.cli("switch", "hy-mt", to)
    receipts = [s.receipt(n) for n in (1, 2, 3)]
    assert [r["to"] for r in receipts] == ["v2", "v1", "v2"]
    assert receipts[0]["previous_hash"] == ""
    for a, b in zip(receipts, receipts[1:]):
        assert b["previous_hash"] == a["hash"] != ""
    s.stop()
    s.start()
    assert [s.receipt(n) for n in (1, 2, 3)] == receipts
    assert s.serving() == "v2", "what was switched to serves after a restart"
    assert "number 3" in s.cli("receipt").out or "3" in s.cli("receipt").out


def test_pinned_requests_reach_the_spare(segue):
    s = segue(model(command("--answer", "old"), command("--answer", "new")))
    s.cli("switch", "hy-mt", "v2")
    for name, want in (("hy-mt", "new"), ("hy-mt@v1", "old"), ("hy-mt@v2", "new")):
        a = s.ask(post(chat("x", model=name)))
        assert a.json()["choices"][0]["message"]["content"] == want


def test_spare_on_disk_is_stopped_and_started_again_for_a_rollback(segue):
    s = segue({"hy-mt": {"serve": "v1", "update": {**QUICK, "spare": "disk"},
                         "versions": {"v1": command("--answer", "old"),
                                      "v2": command("--answer", "new")}}})
    s.cli("switch", "hy-mt", "v2")
    wait_until(lambda: s.replicas("v1") == [], 30, "the old version is stopped")
    s.cli("rollback", "hy-mt")
    assert s.serving() == "v1"
    assert s.ask(post(chat("x", model="hy-mt"))).json()["choices"][0]["message"]["content"] == "old"
