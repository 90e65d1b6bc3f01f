"""Load from bench/segue-load, which verifies each answer; the switches are written to its log."""
import json
import os
import signal
import time

from .box import binary
from .wait import wait_until


class Load:
    """load = Load(box, address, connections=32, streams=0.5); ...; report = load.finish()"""

    def __init__(self, box, address, model="hy-mt", connections=16, streams=0.5, threads=1,
                 check_version=True, sentences=None, expect=None, name="load", timeout=60,
                 **options):
        self.box = box
        self.switches = box.folder / f"{name}.switches"
        self.switches.touch()
        argv = [binary("segue-load"), "--connections", connections, "--streams", streams,
                "--threads", threads, "--model", model, "--timeout", timeout, "--report", 0.2,
                "--json", "--switch-log", self.switches]
        if "duration" not in options and "requests" not in options:
            options["duration"] = 600
        if check_version:
            argv.append("--check-version")
        for key, value in (("sentences", sentences), ("expect", expect), *options.items()):
            if value is not None:
                argv += ["--" + key.replace("_", "-"), value]
        argv.append("http://%s:%d" % address if isinstance(address, tuple) else address)
        self.process = box.start(name, argv)
        self.process.expect.add(1)  # it tells by its status that something failed

    def lines(self):
        text = self.process.text()
        return [json.loads(line) for line in text.splitlines() if line.startswith("{")]

    def latest(self):
        """The newest interval's line; {} before the first."""
        lines = self.lines()
        return lines[-1] if lines else {}

    def wait_ok(self, n, seconds=60):
        """Waits until n answers were good."""
        wait_until(lambda: self.latest().get("total_ok", 0) >= n, seconds,
                   f"{n} good answers; {self.latest()}")

    def ok(self):
        return self.latest().get("total_ok", 0)

    def switched(self, version, began_ns, acked_ns=None):
        """A switch was acknowledged: now, or at acked_ns."""
        with open(self.switches, "a") as f:
            f.write(f"{acked_ns or time.monotonic_ns()} {version} {began_ns}\n")

    def finish(self, good=True):
        """Ends it; its report. With `good`, every answer must have been."""
        self.process.signal(signal.SIGINT)
        self.process.wait(60)
        report = self.lines()[-1]
        assert "failures" in report, report
        if good:
            assert report["failed"] == 0 and report["truncated"] == 0, self.story(report)
            assert report["on_old_after_switch"] == 0, self.story(report)
            assert report["ok"] > 0
        return report

    @staticmethod
    def story(report):
        return json.dumps({k: report[k] for k in (
            "requests", "ok", "failed", "truncated", "causes", "status", "versions", "switches",
            "on_old_after_switch", "failures")}, indent=1, ensure_ascii=False)

    def close(self):
        os.kill(self.process.pid, signal.SIGKILL)
