"""What can be seen of a running segue: access log, /metrics, counters, `segue top`."""
import fcntl
import http.client
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios

import pytest

from harness import SLOW, binary, chat, command, head, post, wait_until
from harness.segue import Unix

pytestmark = pytest.mark.whole

QUICK = {"drain": "10s", "settle_requests": 0}


def model(v1, v2=None, **more):
    versions = {"v1": v1, **({"v2": v2} if v2 else {})}
    return {"hy-mt": {"serve": "v1", "update": QUICK, "versions": versions, **more}}


def ask(s, text="hello", **more):
    return s.ask(post(chat(text, model="hy-mt", **more)))


# --- the exposition format, read strictly --------------------------------------------------------

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
SAMPLE = re.compile(rf"({NAME})(?:\{{(.*)\}})? (\S+)")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\[\\"n])*)"(?:,|$)')


class Metrics:
    """{name: {frozenset of labels: value}}; asserts all that the format and good manners ask."""

    def __init__(self, text):
        assert text.endswith("\n") and "\r" not in text
        self.types, self.helps, self.samples = {}, {}, {}
        family, seen = None, set()
        for line in text[:-1].split("\n"):
            if line.startswith("# HELP "):
                name, help_text = line[7:].split(" ", 1)
                assert name not in self.helps and help_text, line
                self.helps[name], family = help_text, name
            elif line.startswith("# TYPE "):
                name, kind = line[7:].split(" ")
                assert name == family and name not in self.types, line
                assert kind in ("counter", "gauge", "histogram"), line
                self.types[name] = kind
            else:
                self._sample(line, family, seen)
        for name, kind in self.types.items():
            assert name.startswith("segue_"), name
            assert (kind == "counter") == name.endswith("_total"), name
            if kind == "histogram":
                assert name.endswith("_seconds"), name
                self._histogram(name)

    def _sample(self, line, family, seen):
        m = SAMPLE.fullmatch(line)
        assert m, line
        name, labels, value = m.groups()
        base = name
        if self.types.get(family) == "histogram":
            base = re.sub("_(bucket|sum|count)$", "", name)
        assert base == family, f"{line} stands in the family {family}"
        found, end = {}, 0
        for label in LABEL.finditer(labels or ""):
            assert label.start() == end and label[1] not in found, line
            found[label[1]], end = label[2], label.end()
        assert end == len(labels or ""), line
        key = frozenset(found.items())
        assert (name, key) not in seen, f"twice: {line}"
        seen.add((name, key))
        self.samples.setdefault(name, {})[key] = float(value)

    def _histogram(self, name):
        for key, count in self.samples.get(f"{name}_count", {}).items():
            buckets = {}
            for k, v in self.samples[f"{name}_bucket"].items():
                if k - {x for x in k if x[0] == "le"} == key:
                    buckets[float(dict(k)["le"])] = v
            assert len(buckets) > 10 and sorted(buckets) == list(buckets), name
            assert list(buckets.values()) == sorted(buckets.values()), "cumulative"
            assert buckets[float("inf")] == count
            total = self.samples[f"{name}_sum"][key]
            assert total >= 0 and (count or not total)

    def get(self, name, **labels):
        """The sum of the samples that have these labels."""
        return sum(v for k, v in self.samples[name].items() if set(labels.items()) <= k)

    def counters(self):
        for name, rows in self.samples.items():
            kind = self.types.get(name) or self.types[re.sub("_(bucket|sum|count)$", "", name)]
            if kind != "gauge" and not name.startswith("segue_process_cpu"):
                for key, value in rows.items():
                    yield (name, key), value


def scrape(s):
    c = Unix(s.socket)
    c.request("GET", "/metrics")
    r = c.getresponse()
    assert r.status == 200
    assert r.getheader("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    m = Metrics(r.read().decode())
    c.close()
    return m


# --- /metrics ------------------------------------------------------------------------------------


def test_metrics_say_what_happened(segue):
    s = segue(model(command()))
    for _ in range(3):
        assert ask(s).status == 200
    assert ask(s, stream=True).status == 200
    s.tell("v1", mode="500", times=1)
    assert ask(s).status == 500
    assert s.ask(head("GET", "/nothing")).status == 404
    m = scrape(s)
    version = {"model": "hy-mt", "version": "v1"}
    assert m.get("segue_exchanges_total", outcome="finished", **version) == 4
    assert m.get("segue_exchanges_total", outcome="failed", **version) == 1
    assert m.get("segue_exchanges_started_total", by="route", **version) == 5
    assert m.get("segue_tokens_total", **version) > 1
    assert m.get("segue_whole_seconds_count", **version) == 4
    assert m.get("segue_token_seconds_count", **version) == 1
    assert m.get("segue_gateway_errors_total", **{"class": "4xx"}) == 1
    assert m.get("segue_requests_total") >= 6  # and those of the test's own readiness
    assert m.get("segue_in_flight", replica="hy-mt@v1#0") == 0
    assert m.get("segue_replica_ready", replica="hy-mt@v1#0") == 1
    assert m.get("segue_route_share", **version) == 1
    assert m.get("segue_gateway_up") == 1
    assert m.get("segue_epoch") == m.get("segue_epoch_acknowledged") == s.status()["epoch"]
    for process in ("manager", "gateway", "engine"):
        assert m.get("segue_process_resident_memory_bytes", process=process) > 1 << 20
        assert m.get("segue_process_cpu_seconds_total", process=process) >= 0


def test_no_counter_goes_backwards(segue):
    """Updates and deaths: slots and processes change hands, sums do not shrink."""
    s = segue(model(command(), command()))
    last = {}

    def check():
        now = dict(scrape(s).counters())
        for key, value in last.items():
            assert now.get(key, -1) >= value, (key, value, now.get(key))
        last.update(now)

    def finished(version):
        return scrape(s).get("segue_exchanges_total", outcome="finished", version=version)
    total = 0
    for target in ("v2", "v1", "v2"):
        for _ in range(5):
            assert ask(s).status == 200
        total += 5
        check()
        s.cli("switch", "hy-mt", target)
        check()
    for version in ("v1", "v2"):  # a new process, the same or another slot
        pid = s.kill9("engine", version)
        wait_until(lambda: s.replicas(version)[0]["state"] == "ready"
                   and s.replicas(version)[0]["pid"] != pid, 20 * SLOW, "it is back")
        check()
    s.kill9("gateway")
    s.wait_ready()
    assert ask(s).status == 200
    check()
    # An answer is counted right after its last byte is sent, not before.
    wait_until(lambda: finished("v1") + finished("v2") == total + 1, 10)
    m = scrape(s)
    assert m.get("segue_rollouts_total", kind="switch", result="done") == 3
    assert m.get("segue_gateway_restarts_total") == 1


def test_metrics_on_their_own_address(segue):
    s = segue(model(command()), metrics={"listen": "127.0.0.1:0"})
    port = int(re.search(r"metrics: GET /metrics on port (\d+)", s.process.text())[1])
    for path, status in (("/metrics", 200), ("/", 404), ("/admin/v1/status", 404)):
        c = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        c.request("GET", path)
        r = c.getresponse()
        assert r.status == status
        text = r.read().decode()
        if status == 200:
            Metrics(text)
        c.close()
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    c.request("POST", "/metrics", b"")
    assert c.getresponse().status == 405


def test_an_address_in_use_is_said(segue, box):
    s = segue(model(command()), metrics={"listen": "127.0.0.1:0"})
    port = re.search(r"metrics: GET /metrics on port (\d+)", s.process.text())[1]
    other = segue(model(command()), start=False, name="other",
                  metrics={"listen": f"127.0.0.1:{port}"})
    p = other.start(ready=False)
    p.expect.add(1)
    assert p.wait(20 * SLOW) == 1
    assert "metrics.listen" in p.text() and port in p.text()


# --- the access log ------------------------------------------------------------------------------


def lines_of(*paths):
    return [json.loads(line) for p in paths if p.exists() for line in p.read_text().splitlines()]


def test_the_access_log_and_its_rotation(segue):
    s = segue(model(command()), access_log={"file": "access.log"})
    log, old = s.folder / "access.log", s.folder / "access.log.1"
    assert log.stat().st_mode & 0o777 & ~0o640 == 0
    own = len([1 for _ in range(10) if ask(s).status == 200])
    os.rename(log, old)
    s.process.signal(signal.SIGHUP)
    wait_until(log.exists, 10 * SLOW, "the manager has opened it anew")
    own += len([1 for _ in range(10) if ask(s).status == 200])

    def asked():
        return [n for n in lines_of(old, log) if n["path"] == "/v1/chat/completions"]
    wait_until(lambda: len(asked()) == own == 20, 10 * SLOW, "all lines are in one of the files")
    assert {n["replica"] for n in asked()} == {"hy-mt@v1#0"}
    assert lines_of(log), "new lines go to the new file"


def test_the_log_outlives_gateway_and_manager(segue):
    s = segue(model(command()), access_log={"file": "access.log", "format": "json"})
    log = s.folder / "access.log"
    ask(s)
    wait_until(lambda: any(n["tries"] for n in lines_of(log)), 10 * SLOW, "a line")
    s.kill9("gateway")
    s.wait_ready()
    ask(s)
    wait_until(lambda: sum(n["tries"] for n in lines_of(log)) == 2, 10 * SLOW, "the next gateway")
    s.kill9("manager")
    s.start()
    ask(s)
    wait_until(lambda: sum(n["tries"] for n in lines_of(log)) == 3, 10 * SLOW, "the next manager")


def test_a_log_that_cannot_be_opened_is_said(segue):
    s = segue(model(command()), start=False, access_log={"file": "no/such/folder/access.log"})
    p = s.start(ready=False)
    p.expect.add(1)
    assert p.wait(20 * SLOW) == 1
    assert "access_log.file" in p.text()


def test_requests_are_answered_refused_or_cut(segue):
    """Counters, log and metrics tell one story."""
    s = segue(model(command()), access_log={"file": "access.log"})
    for mode in ("ok", "500", "cut", "ok", "cut", "no-done"):
        s.tell("v1", mode=mode, after=1)
        ask(s, stream=True)
        s.ask(head("GET", "/nothing"))
        s.ask(post("{"))
    s.tell("v1", mode="ok")
    log = s.folder / "access.log"

    def counts():
        code, value = s.admin("GET", "/admin/v1/counters")
        assert code == 200
        return value["gateway"]
    wait_until(lambda: len(lines_of(log)) == counts()["requests"] == counts()["log_lines"],
               20 * SLOW, "a line for each request")
    lines, c = lines_of(log), counts()
    by = {o: sum(n["outcome"] == o for n in lines)
          for o in ("finished", "failed", "truncated", "cancelled", "refused")}
    assert c["requests"] == c["answered"] + by["truncated"] + by["cancelled"]
    assert by["refused"] == c["errors_4xx"] + c["errors_5xx"] >= 12
    m = scrape(s)
    for outcome in ("failed", "truncated", "cancelled"):
        assert m.get("segue_exchanges_total", outcome=outcome) == by[outcome], outcome
    assert by["truncated"] >= 2 and by["failed"] >= 1


# --- segue top -----------------------------------------------------------------------------------


def test_top_once(segue):
    s = segue(model(command(), command()))
    done = s.cli("top", "--once", "-d", "0.2")
    lines = done.out.splitlines()
    assert all(len(line) <= 79 for line in lines), done
    assert re.match(r"segue \S+  manager \d+, ", lines[0])
    assert re.match(r"gateway \d+, 2 workers, epoch \d+", lines[1])
    assert re.search(r"^hy-mt@v1 +100% ", done.out, re.M), done
    assert re.search(r"^hy-mt@v2 +0% ", done.out, re.M), done
    assert re.search(r"^hy-mt@v1#0 +ready +\d+ +[\d.]+ MiB ", done.out, re.M), done
    assert "\033" not in done.out


def test_top_counts_what_happens_meanwhile(segue, load):
    s = segue(model(command()))
    traffic = load(s.address, connections=4, streams=0.5)
    traffic.wait_ok(20)
    value = s.cli("top", "--json", "-d", "1").json()
    traffic.finish()
    (v1,) = value["versions"]
    assert v1["finished"] > 0 and v1["failed"] == 0 and v1["state"] == "serving"
    assert value["counts"]["requests"] > 0 and 0.9 < value["seconds"] < 10 * SLOW
    assert 0 < v1["first_byte_ms"]["p50"] <= v1["first_byte_ms"]["p99"]
    assert v1["replicas"][0]["name"] == "hy-mt@v1#0"


def test_top_refuses_a_strange_delay(segue):
    s = segue(model(command()))
    assert "--delay takes seconds" in s.cli("top", "-d", "soon", expect=2).err


class Terminal:
    """segue top on a terminal of 80 columns."""

    def __init__(self, s):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.output = b""
        self.process = subprocess.Popen(
            [binary("segue"), "--socket", str(s.socket), "top", "-d", "0.2"], stdin=slave,
            stdout=slave, stderr=slave, env={**s.box.env, "TERM": "xterm"}, start_new_session=True)

    def read(self):
        while select.select([self.master], [], [], 0)[0]:
            self.output += os.read(self.master, 65536)
        return self.output

    def shows(self, what, times=1):
        wait_until(lambda: self.read().count(what) >= times, 20 * SLOW, f"the screen has {what}")

    def end(self):
        """Its exit status; the terminal is as it was."""
        wait_until(lambda: self.read() is not None and self.process.poll() is not None, 20 * SLOW,
                   "top has ended")
        output = self.read()
        assert output.startswith(b"\033[?1049h") and output.endswith(b"\033[?1049l")
        assert termios.tcgetattr(self.slave) == self.before
        os.close(self.master)
        os.close(self.slave)
        return self.process.returncode


@pytest.mark.parametrize("how", ["q", "SIGINT", "SIGTERM"])
def test_top_live(segue, how):
    s = segue(model(command()))
    t = Terminal(s)
    t.shows(b"hy-mt@v1#0", 3)  # drawn over itself
    if how == "q":
        os.write(t.master, b"q")
    else:
        t.process.send_signal(getattr(signal, how))
    assert t.end() == 0


def test_top_lives_through_a_manager_that_is_gone(segue):
    s = segue(model(command()))
    t = Terminal(s)
    t.shows(b"hy-mt@v1#0")
    s.kill9("manager")
    t.shows(b"does not answer")
    t.output = b"\033[?1049h"
    s.start()
    t.shows(b"hy-mt@v1#0")
    os.write(t.master, b"q")
    assert t.end() == 0


def test_top_without_a_server(box):
    done = subprocess.run([binary("segue"), "--socket", str(box.folder / "none.sock"), "top"],
                          env=box.env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and "nobody answers" in done.stderr
