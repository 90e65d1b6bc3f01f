"""What is done to segue meanwhile."""
import os
import signal
import time

from harness import wait_until

from .worker import Stop


class Switcher:
    """A switch of `model` between its two versions each time that it is called."""

    def __init__(self, segue, model):
        self.segue, self.model = segue, model
        self.to = "v2"
        self.us = []

    def __call__(self, w):
        began = time.monotonic_ns()
        try:
            status, value = self.segue.admin("POST", "/admin/v1/switch",
                                             {"model": self.model, "version": self.to})
        except (OSError, ValueError) as e:
            # The manager is dead, or died over it.
            w.ledger.switched(self.model, began, None)
            if not any(d.what == "manager" and time.monotonic_ns() - d.before_ns < 30e9 * w.slow
                       for d in w.ledger.deaths):
                w.ledger.complain(f"switch of {self.model}: {e!r}")
            w.pause(0.5)
            return
        if status == 200:
            w.ledger.switched(self.model, began, self.to)
            w.ledger.count(f"switches of {self.model}")
            if "switch_us" in value:
                self.us.append(value["switch_us"])
        else:
            # Its engine was just killed; when it will have been switched is not known.
            w.ledger.switched(self.model, began, None)
            w.ledger.count(f"switches of {self.model} not taken ({status})")
            if not any(d.what.startswith(self.model + "@")
                       and time.monotonic_ns() - d.before_ns < 30e9 * w.slow
                       for d in w.ledger.deaths):
                w.ledger.complain(f"switch of {self.model} to {self.to}: {status} {value}")
        self.to = "v1" if self.to == "v2" else "v2"


def healthy(segue):
    """All replicas of all versions are ready; the status. But for `sick`, of course."""
    status = segue.status()
    for m in status["models"]:
        if m["name"] == "sick":
            continue
        for v in m["versions"]:
            for r in v["replicas"]:
                assert r["state"] == "ready", (m["name"], v["name"], r["state"], r.get("reason"))
    assert status["gateway"] and status["gateway"]["pid"]
    return status


class Killer:
    """Kills the next of `targets` (("engine", model, version or None for the serving one, index),
    ("gateway",), ("manager",)), when all are well again after the last."""

    def __init__(self, segue, ledger, targets):
        self.segue, self.ledger, self.targets = segue, ledger, list(targets)
        self.next = 0

    def __call__(self, w):
        target = self.targets[self.next % len(self.targets)]
        self.next += 1

        def well():
            if w.stopping.is_set():
                raise Stop
            return healthy(self.segue)
        try:
            status = wait_until(well, 60 * w.slow, "all engines are ready again")
        except AssertionError as e:
            self.ledger.complain(str(e))
            return
        if target[0] == "engine":
            m = next(m for m in status["models"] if m["name"] == target[1])
            v = next(v for v in m["versions"] if v["name"] == (target[2] or m["serving"]))
            self.kill(f"{m['name']}@{v['name']}", v["replicas"][target[3]]["pid"])
        elif target[0] == "gateway":
            self.kill("gateway", status["gateway"]["pid"])
        else:
            death = self.ledger.death("manager")
            self.segue.process.kill9()
            death.after_ns = time.monotonic_ns()
            self.ledger.count("killed: manager")
            self.segue.start(ready=False)

    def kill(self, what, pid):
        death = self.ledger.death(what)
        os.kill(pid, signal.SIGKILL)
        death.after_ns = time.monotonic_ns()
        self.ledger.count(f"killed: {what}")
