"""The whole: `segue serve` with its gateway and engines, and the command line that talks to it."""
import http.client
import json
import os
import signal
import socket
import subprocess
import time

from .box import ROOT, SLOW, Process, binary
from .wait import wait_until
from .wire import Wire

MODELS = ROOT / "models"
FAKE = ROOT / "tests" / "fake" / "engine.py"
PYTHON = "python3"


def builtin(path="tiny-mt-v1.gguf", **more):
    """A version that segue-engine runs."""
    return {"engine": "builtin", "path": str(MODELS / path), "parallel": 16, **more}


def command(*args, **more):
    """A version that the fake engine plays, started by the manager."""
    return {"engine": "command", "run": [PYTHON, str(FAKE), "--listen", "127.0.0.1:{port}",
                                         "--name", "{name}", *args], **more}


def openai(engine, **more):
    """A version that somebody else runs: an Upstream, a Fake, or an address."""
    url = getattr(engine, "url", engine)
    return {"engine": "openai", "url": url, **more}


class Unix(http.client.HTTPConnection):
    def __init__(self, path, timeout=60):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def tell(port, **change):
    """Changes settings of a fake engine; its settings and counters."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        c.request("POST" if change else "GET", "/fake", json.dumps(change) if change else None)
        value = json.loads(c.getresponse().read())
    finally:
        c.close()
    assert "error" not in value, value
    return value


class Fake:
    """tests/fake/engine.py as a process of the test."""

    def __init__(self, box, *args, name="fake"):
        self.box = box
        self.args = args
        self.name = name
        self.start()

    def start(self, port=0):
        self.process = self.box.start(self.name, [PYTHON, FAKE, "--listen", f"127.0.0.1:{port}",
                                                  "--name", self.name, *self.args])
        self.process.expect |= {-signal.SIGTERM, -signal.SIGKILL, 3}
        line = wait_until(lambda: "listening on port" in self.process.text()
                          and self.process.text(), 20)
        self.port = int(line.split("listening on port ")[1].split()[0])
        self.url = f"http://127.0.0.1:{self.port}"

    def settings(self, **change):
        """Its settings and counters; changed first."""
        return tell(self.port, **change)


class Done:
    """What a command came to."""

    def __init__(self, done):
        self.status, self.out, self.err = done.returncode, done.stdout, done.stderr

    def json(self):
        return json.loads(self.out)

    def __repr__(self):
        return f"<status {self.status}\n{self.out}\n--- stderr\n{self.err}>"


class Segue:
    def __init__(self, box, models, start=True, name="segue", **more):
        self.box, self.name = box, name
        self.folder = box.folder / name
        self.folder.mkdir(exist_ok=True)
        self.config = self.folder / "segue.yaml"
        self.socket = self.folder / "run" / "admin.sock"
        self.process = None
        self.configure(models, **more)
        box.own(self)
        if start:
            self.start()

    def configure(self, models, **more):
        value = {"listen": "127.0.0.1:0", "workers": 2, "state": "run", **more, "models": models}
        self.config.write_text(json.dumps(value, ensure_ascii=False, indent=1))  # YAML too

    # --- life ---

    def start(self, ready=True, log_level="info"):
        self.process = Process(self.box, self.name, [binary("segue"), "serve", "-c", self.config],
                               cwd=self.folder)
        if ready:
            self.wait_ready()
        return self.process

    def wait_ready(self, seconds=30):
        """The admin API says that each model's serving version has a ready replica, and the
        gateway says so too."""
        def ready():
            assert self.process.running(), f"segue serve has ended:\n{self.process.text()}"
            status = self.status()
            for m in status["models"]:
                serving = next(v for v in m["versions"] if v["name"] == m["serving"])
                assert any(r["state"] == "ready" for r in serving["replicas"]), m
            with self.wire() as w:
                return w.ask(b"GET /readiness HTTP/1.1\r\nHost: x\r\n\r\n").status == 200
        wait_until(ready, seconds * SLOW, "segue is ready")

    def stop(self, seconds=30):
        """SIGTERM, and everything it started ends too."""
        self.process.end(seconds)

    def close(self):
        if self.process and self.process.running():
            self.process.end(40)
            return
        # Its manager was killed: gateway and engines live on, as they should.
        for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGKILL):
            pids = self.box.processes()
            for pid in pids:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    pass
            until = time.monotonic() + 3
            while self.box.processes() and time.monotonic() < until:
                time.sleep(0.05)

    # --- admin ---

    def admin(self, method, path, body=None, timeout=60):
        """(status, JSON) of the admin API."""
        c = Unix(self.socket, timeout)
        try:
            c.request(method, path, None if body is None else json.dumps(body),
                      {"Content-Type": "application/json"} if body is not None else {})
            r = c.getresponse()
            return r.status, json.loads(r.read())
        finally:
            c.close()

    def status(self):
        code, value = self.admin("GET", "/admin/v1/status")
        assert code == 200, value
        return value

    def model(self, name=None):
        models = self.status()["models"]
        return models[0] if name is None else next(m for m in models if m["name"] == name)

    def version(self, version, model=None):
        return next(v for v in self.model(model)["versions"] if v["name"] == version)

    def replicas(self, version, model=None):
        return self.version(version, model)["replicas"]

    def tell(self, version, **change):
        """Changes settings of a `command` version's fake engine."""
        return tell(int(self.replicas(version)[0]["address"].rsplit(":", 1)[1]), **change)

    def serving(self, model=None):
        return self.model(model)["serving"]

    def gateway_pid(self):
        return self.status()["gateway"]["pid"]

    def pids(self):
        """Of everything: {"manager", "gateway", "v1": [...], ...}"""
        status = self.status()
        found = {"manager": status["pid"], "gateway": status["gateway"]["pid"]}
        for m in status["models"]:
            for v in m["versions"]:
                found[v["name"]] = [r["pid"] for r in v["replicas"]]
        return found

    def kill9(self, what, version=None):
        """'manager', 'gateway', or 'engine' of a version; its pid."""
        if what == "manager":
            self.process.kill9()
            return self.process.pid
        pid = self.gateway_pid() if what == "gateway" else self.replicas(
            version or self.serving())[0]["pid"]
        os.kill(pid, signal.SIGKILL)
        return pid

    # --- the command line ---

    def cli(self, *args, expect=0, timeout=120, stdin=None):
        done = Done(subprocess.run(
            [binary("segue"), "--socket", str(self.socket), *map(str, args)], env=self.box.env,
            cwd=self.folder, capture_output=True, text=True, timeout=timeout, input=stdin))
        if expect is not None:
            assert done.status == expect, done
        return done

    def receipt(self, number=None):
        """The newest receipt, or one by its number."""
        return self.cli("receipt", *([number] if number else []), "--json").json()

    # --- traffic ---

    @property
    def address(self):
        host, port = self.status()["gateway"]["listen"][0].rsplit(":", 1)
        return host, int(port)

    @property
    def url(self):
        return "http://%s:%d" % self.address

    def wire(self, **more):
        return Wire(self.address, **more)

    def ask(self, data, method="POST"):
        with self.wire() as w:
            return w.ask(data, method)
