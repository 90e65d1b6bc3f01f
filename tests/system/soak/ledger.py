"""The book of facts: what was switched and killed when, and whether each answer agrees.

An answer is judged some seconds after its end, when all lines about its time are written.
"""
import collections
import threading
import time

SHOWN = 25
JUDGE_AFTER_NS = 3_000_000_000


class Death:
    """SIGKILL for an engine ("mix@v1"), the gateway or the manager."""

    def __init__(self, what):
        self.what = what
        self.before_ns = time.monotonic_ns()
        self.after_ns = None  # until the signal was sent


class Record:
    """One request of a client that behaves well. All times are CLOCK_MONOTONIC.

    opened_ns: the connection; began_ns: just before the first byte of the request was sent.
    tag: "mix@v1", None if the answer names no version. wrong: why it is not right, "" if it is.
    cut: its head came, and the end of the connection shows that it is not whole.
    """
    __slots__ = ("who", "model", "opened_ns", "began_ns", "ended_ns", "tag", "pinned", "wrong",
                 "cut", "slow")

    def __init__(self, who, model, opened_ns):
        self.who, self.model, self.opened_ns = who, model, opened_ns
        self.began_ns = time.monotonic_ns()
        self.ended_ns = 0
        self.tag, self.pinned, self.wrong, self.cut, self.slow = None, None, "", False, False

    def __str__(self):
        def at(ns):
            return f"{ns / 1e9:.3f}"
        return (f"{self.who}: {self.wrong or 'right'} ({self.tag or self.model}, connected at "
                f"{at(self.opened_ns)}, asked at {at(self.began_ns)}, ended at "
                f"{at(self.ended_ns)})")


class Ledger:
    def __init__(self, slow=1):
        self.lock = threading.Lock()
        self.patience_ns = 5_000_000_000 * slow  # from a death to the end of what it cut
        self.margin_ns = 100_000_000 * slow      # a killed process may run a moment longer
        self.switches = collections.defaultdict(list)  # model: [(began, acked, version or None)]
        self.deaths = []
        self.waiting = collections.deque()
        self.counts = collections.Counter()
        self.wrong = []     # sentences; the first ones
        self.nwrong = 0
        self.on_old = 0

    def complain(self, text):
        with self.lock:
            self.nwrong += 1
            if len(self.wrong) < SHOWN:
                self.wrong.append(f"[{time.monotonic():.3f}] {text}")

    def count(self, what, by=1):
        with self.lock:
            self.counts[what] += by

    # --- what was done ---

    def switched(self, model, began_ns, version):
        """Acknowledged a moment ago; version None: it cannot be told which one serves now."""
        acked_ns = time.monotonic_ns()
        with self.lock:
            self.switches[model].append((began_ns, acked_ns, version))
            del self.switches[model][:-2000]

    def death(self, what):
        """To be called right before the signal; death.after_ns is set right after it."""
        d = Death(what)
        with self.lock:
            self.deaths.append(d)
        return d

    def gateway_died_since(self, began_ns):
        return any(d.what == "gateway" and (d.after_ns or began_ns) >= began_ns
                   for d in self.deaths)

    # --- what came of it ---

    def took(self, record):
        record.ended_ns = time.monotonic_ns()
        with self.lock:
            self.counts[record.who] += 1
            self.waiting.append(record)

    def judge(self, everything=False):
        """Judges the answers that are old enough."""
        until = time.monotonic_ns() - (0 if everything else JUDGE_AFTER_NS)
        while True:
            with self.lock:
                if not self.waiting or self.waiting[0].ended_ns > until:
                    return
                r = self.waiting.popleft()
            if r.wrong:
                self._judge_failure(r)
            else:
                self._judge_version(r)

    def _judge_failure(self, r):
        if any(self._killed_gateway_under(d, r) for d in self.deaths):
            self.count("lost with the gateway")
        elif r.cut and any(self._killed_engine_under(d, r) for d in self.deaths):
            self.count("cut with an engine")
        else:
            self.complain(f"failed for no reason: {r}")

    def _killed_gateway_under(self, d, r):
        after = d.after_ns or time.monotonic_ns()
        return (d.what == "gateway" and r.opened_ns <= after + self.margin_ns
                and r.ended_ns >= d.before_ns)

    def _killed_engine_under(self, d, r):
        after = d.after_ns or time.monotonic_ns()
        return (d.what == (r.tag or d.what) and r.began_ns <= after + self.margin_ns
                and d.before_ns <= r.ended_ns
                and (r.slow or r.ended_ns <= after + self.patience_ns))

    def _judge_version(self, r):
        if r.tag is None:
            return  # an answer of the gateway itself
        model, version = r.tag.split("@")
        if r.pinned:
            if r.tag != r.pinned:
                self.complain(f"asked for {r.pinned}: {r}")
            return
        if model != r.model:
            self.complain(f"asked for {r.model}: {r}")
        elif self._contradicts(self.switches[model], r, version):
            self.on_old += 1
            near = [(b / 1e9, a / 1e9, v) for b, a, v in self.switches[model]
                    if abs(a - r.began_ns) < 3e9]
            self.complain(f"by the old version: {r}; switches: {near}")

    @staticmethod
    def _contradicts(switches, r, version):
        expected, later = None, []
        for began, acked, to in switches:
            if acked <= r.began_ns:
                expected = to
            elif began <= r.ended_ns:
                later.append(to)
        return not (expected in (None, version) or version in later or None in later)
