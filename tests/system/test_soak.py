"""Mixed load for a long time: streams, plain answers, abuse, slow and leaving clients, a switch
every second, engines killed with SIGKILL. The parts are in soak/.

SEGUE_SOAK_SECONDS changes how long each test takes.
"""
import json
import os
import statistics
import sys
import time

import pytest

from harness import (SANITIZER, SLOW, Fake, Load, Segue, Upstream, Wire, answer, builtin, chat,
                     chunked, command, event_stream, openai, post, wait_until)
from soak import ABUSES, CLIENTS, Crew, Killer, Ledger, Meter, Switcher
from soak.abuse import BODY_BYTES, BODY_S, HEAD_S, IDLE_S, SEND_S
from soak.chaos import healthy
from soak.clients import LONG_EVENTS, LONG_PIECE
from soak.meter import descriptors

pytestmark = pytest.mark.whole

FLAT = 1.05  # "flat within 5 %"
SICK_MODES = ["ok", "500", "503", "429", "empty", "not-json", "cut-before", "cut-head", "cut",
              "reset", "garbage", "ssh", "http09", "http2", "101", "1xx", "cl-te", "bad-chunk",
              "extra", "short", "close", "no-done", "early", "endless-head"]
LOAD_MODEL = "mix"
ENGINES = [("engine", "mix", None, 0), ("engine", "tiny", None, 0), ("engine", "mix", "v2", 1),
           ("engine", "mix", "v1", 1), ("engine", "tiny", "v2", 0), ("engine", "mix", None, 0)]
# Of segue-load's failures: those that an engine's end under a relayed answer explains, and
# those that the gateway's end does.
CUT = {"truncated", "error_event"}
LOST = CUT | {"unanswered", "connect", "framing"}


def long_answers(request, conn):
    """The engine of `long`: streams of megabytes, as fast as they are taken."""
    if request.method == "GET":
        conn.send(answer({"data": [{"id": "long"}]}))
        return
    if not request.json().get("stream"):
        conn.send(answer({"choices": [{"index": 0, "message": {"content": "long"}}]}))
        return

    def event(text, finish=None):
        return chunked(b"data: %s\n\n" % json.dumps({
            "model": request.json()["model"], "choices": [
                {"index": 0, "delta": {"content": text}, "finish_reason": finish}]}).encode(),
            last=False)
    conn.send(event_stream())
    piece = event("a" * LONG_PIECE)
    for _ in range(LONG_EVENTS):
        conn.send(piece)
    conn.send(event("", "stop") + chunked(b"data: [DONE]\n\n"))


def say(text):
    print(text, file=sys.stderr, flush=True)


class Soak:
    def __init__(self, box, seconds, kill_every, all_die=False):
        self.box, self.all_die = box, all_die
        self.seconds = float(os.environ.get("SEGUE_SOAK_SECONDS", seconds))
        self.kill_every = kill_every
        self.warm_up = 300 if self.seconds >= 1800 else self.seconds / 3
        # The manager's store fills its cache in the first minutes; sanitizers keep freed memory.
        self.long_enough = self.seconds >= 300 and not SANITIZER
        self.ledger = Ledger(SLOW)

    def run(self):
        self.start()
        self.go()
        self.settle()
        self.verdict()

    # --- the parts ---

    def start(self):
        box = self.box
        self.sick = Fake(box, name="sick")
        self.long = Upstream(box, long_answers, name="long")
        mix = ["--answer", "{name} says {ask}", "--delay", "0.012"]
        update = {"settle_requests": 0, "drain": "60s"}
        self.segue = Segue(box, {
            "mix": {"serve": "v1", "update": update,
                    "versions": {"v1": command(*mix, replicas=2),
                                 "v2": command(*mix, replicas=2)}},
            "tiny": {"serve": "v1", "update": update,
                     "versions": {"v1": builtin("tiny-mt-v1.gguf", parallel=4, threads=1),
                                  "v2": builtin("tiny-mt-v2.gguf", parallel=4, threads=1)}},
            "long": {"versions": {"v1": openai(f"http://{self.long.address}")}},
            "sick": {"hold": "2s", "versions": {"v1": openai(self.sick)}},
        }, timeouts={"head": f"{HEAD_S}s", "body": f"{BODY_S}s", "idle": f"{IDLE_S}s",
                     "send": f"{SEND_S}s", "first_byte": "60s", "between_bytes": "30s",
                     "upstream_idle": "5s"},
            limits={"body_bytes": BODY_BYTES, "client_buffer_bytes": "64KiB"})
        self.status = wait_until(lambda: healthy(self.segue), 60 * SLOW, "all engines are ready")
        for model in ("mix", "tiny"):  # the second version is started when it is first wanted
            self.segue.cli("switch", model, "v2")
            self.segue.cli("switch", model, "v1")
        self.status = healthy(self.segue)
        self.pids = {"gateway": self.status["gateway"]["pid"], "manager": self.status["pid"]}
        self.address = self.segue.address

    def go(self):
        self.meter = Meter(self.pids)
        load_at = time.monotonic()
        self.load = Load(self.box, self.address, model=LOAD_MODEL, connections=12, streams=0.5,
                         rate=15, body_bytes=120, duration=self.seconds + 120)
        crew = Crew(self.address, self.ledger, SLOW)
        crew.slow_seconds = 3 * SEND_S
        for table in (CLIENTS, ABUSES):
            for name, (function, n, every) in table.items():
                crew.add(name, function, n, every)
        self.mix, self.tiny = Switcher(self.segue, "mix"), Switcher(self.segue, "tiny")
        crew.add("switch", lambda w: (w.pause(1), self.mix(w)))
        crew.add("switch tiny", lambda w: (w.pause(4.7), self.tiny(w)))
        crew.add("sick", lambda w: (self.sicken(w), w.pause(2)))
        targets = ENGINES
        if self.all_die:
            targets = [("gateway",), ENGINES[0], ("manager",)]
        crew.add("kill", lambda w, k=Killer(self.segue, self.ledger, targets):
                 (w.pause(self.kill_every), k(w)))
        began, told = time.monotonic(), time.monotonic()
        while time.monotonic() - began < self.seconds:
            time.sleep(0.5)
            self.ledger.judge()
            if time.monotonic() - told > 30:
                told = time.monotonic()
                say(f"{told - began:.0f} s: {sum(self.ledger.counts.values())} things counted, "
                    f"{self.ledger.nwrong} wrong")
            if self.ledger.nwrong >= 200 or not self.load.process.running():
                break  # it will not get better
        self.meter.stop()
        self.report = self.load.finish(good=False)
        self.load_at = load_at
        crew.home()
        self.ledger.judge(everything=True)

    def sicken(self, w):
        """The engine of `sick` does something else; a client asks meanwhile."""
        self.sick.settings(mode=w.random.choice(SICK_MODES))
        for streamed in (False, True, False):
            self.ask_sick(w, streamed)

    def ask_sick(self, w, streamed):
        mode = self.sick.settings()["mode"]
        with Wire(self.address, 90) as c:
            try:
                a = c.ask(post(chat("x", "sick", streamed)))
            except (OSError, EOFError) as e:
                if not self.all_die:
                    self.ledger.complain(f"sick ({mode}): no answer: {e!r}")
                return
            self.ledger.count(f"sick: {a.status}" + ("" if a.complete else " cut"))
            if a.status >= 400 and a.complete:
                if not a.json()["error"]["message"]:
                    self.ledger.complain(f"sick ({mode}): {a!r}")

    def settle(self):
        """Everybody has left: nothing may be left of them."""
        def quiet():
            status = healthy(self.segue)
            c = status["counters"]
            assert c["connections"] == 0 and c["held"] == 0, c
            for m in status["models"]:
                assert m["counters"]["in_flight"] == 0, (m["name"], m["counters"])
            return status
        try:
            self.end = wait_until(quiet, 40 * SLOW, "no connection and nothing in flight is left")
        except AssertionError as e:
            self.ledger.complain(str(e))
            self.end = self.segue.status()

        def descriptors_are_back():
            pids = {"gateway": self.end["gateway"]["pid"], "manager": self.end["pid"]}
            for name, pid in pids.items():
                now, first = descriptors(pid), self.meter.first[name].fds
                more = len(ENGINES) if self.all_die else 0  # an adopted engine has one of its own
                assert now <= first + more, f"{name}: {now}, {first}"
            return True
        try:
            wait_until(descriptors_are_back, 40 * SLOW, "as many descriptors as before the load")
        except AssertionError as e:
            self.ledger.complain(str(e))

    # --- verdicts ---

    def verdict(self):
        wrong = list(self.ledger.wrong)
        if self.ledger.nwrong > len(wrong):
            wrong.append(f"... {self.ledger.nwrong} in all")
        for judge in (self.judge_load, self.judge_counters, self.judge_resources):
            wrong += judge()
        say(self.story())
        assert not wrong, "\n".join(wrong)

    def judge_load(self):
        """segue-load's failures come with a death, and are of the kinds that it explains."""
        r, wrong = self.report, []
        if r["ok"] < self.seconds * 10:
            wrong.append(f"segue-load had only {r['ok']} good answers")
        lines = self.load.lines()[:-1]
        causes = {k: n for k, n in r["causes"].items() if n}
        allowed = LOST if self.all_die else CUT
        wrong += [f"segue-load: {n} x {k}" for k, n in causes.items() if k not in allowed]
        deaths = [d.before_ns / 1e9 for d in self.ledger.deaths
                  if d.what == "gateway" or d.what.startswith(LOAD_MODEL + "@")]
        for line in lines:
            at = self.load_at + line["t"]
            if line["failed"] and not any(d - 1 <= at <= d + 4 * SLOW for d in deaths):
                wrong.append(f"segue-load: {line['failed']} failed at {at:.1f}, deaths at {deaths}")
        if wrong:
            wrong.append(Load.story(r))
        return wrong

    def judge_counters(self):
        """They add up, and nothing is in flight."""
        wrong, c = [], self.end["counters"]
        if c["requests"] + c["rejected"] != c["answered"] + c["unanswered"]:
            wrong.append(f"requests and answers do not add up: {c}")
        for m in self.end["models"]:
            t = m["counters"]
            begun = t["started"] + t["pinned"]
            ended = sum(t[k] for k in ("finished", "failed", "truncated", "cancelled", "retried"))
            if begun != ended:
                wrong.append(f"{m['name']}: {begun} begun, {ended} ended: {t}")
        cut = sum(m["counters"]["truncated"] for m in self.end["models"]
                  if m["name"] in ("mix", "tiny"))
        seen = self.ledger.counts["cut with an engine"] + self.report["failed"]
        if not self.all_die and seen > cut:
            wrong.append(f"{seen} answers were seen cut, {cut} are counted as truncated")
        if c["hold_expired"] and not self.all_die:
            wrong.append(f"{c['hold_expired']} requests waited in vain")
        return wrong

    def judge_resources(self):
        if self.all_die:
            return []
        wrong = []
        for name in self.pids:
            if self.end["gateway" if name == "gateway" else "pid"] is None:
                continue
            now = self.end["gateway"]["pid"] if name == "gateway" else self.end["pid"]
            if now != self.pids[name]:
                wrong.append(f"the {name} is not the same process any more")
                continue
            first, *_, last = self.meter.medians(name, "threads", self.warm_up)
            if first != last:
                wrong.append(f"{name}: {first} threads, then {last}")
            first, *_, last = self.meter.high(name, "rss_kb", self.warm_up)
            if last > first * FLAT and self.long_enough:
                wrong.append(f"{name}: its memory grew: "
                             f"{self.meter.high(name, 'rss_kb', self.warm_up, 8)} kB")
        return wrong

    def story(self):
        """What happened, for people."""
        lines = [f"soak of {self.seconds:.0f} s"]
        lines += [f"  {n:8} {what}" for what, n in sorted(self.ledger.counts.items())]
        lines.append(f"  segue-load: {self.report['ok']} right, {self.report['failed']} failed: "
                     + str({k: n for k, n in self.report["causes"].items() if n}))
        for s in (self.mix, self.tiny):
            if s.us:
                lines.append(f"  switch_us of {s.model}: median {statistics.median(s.us):.0f}, "
                             f"most {max(s.us)}")
        for name in self.pids if not self.all_die else []:
            lines.append(f"  {name} rss_kb: {self.meter.high(name, 'rss_kb', self.warm_up, 8)}")
            for what in ("fds", "threads"):
                lines.append(f"  {name} {what}: {self.meter.medians(name, what, self.warm_up, 8)}")
        lines.append("  " + json.dumps(self.end["counters"]))
        for m in self.end["models"]:
            lines.append(f"  {m['name']}: " + json.dumps(m["counters"]))
        return "\n".join(lines)


@pytest.mark.timeout(900)
def test_soak_of_minutes(box):
    Soak(box, 120, kill_every=15).run()


@pytest.mark.timeout(600)
def test_soak_while_gateway_and_manager_die(box):
    Soak(box, 60, kill_every=8, all_die=True).run()


@pytest.mark.soak
@pytest.mark.timeout(6000)
def test_soak_of_an_hour(box):
    Soak(box, 3600, kill_every=60).run()


@pytest.mark.soak
@pytest.mark.timeout(1200)
def test_soak_of_minutes_while_gateway_and_manager_die(box):
    Soak(box, 300, kill_every=15, all_die=True).run()
