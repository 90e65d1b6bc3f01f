"""The gateway alone; the test is its manager.

docs/architecture.md has the messages.
"""
import json
import os
import signal
import socket
import struct
import time

from .box import SLOW, binary
from .counters import Counters
from .upstream import Upstream
from .wait import wait_until
from .wire import Wire


class Refused(AssertionError):
    """The gateway has refused a table."""


def replica(upstream, slot=None, serve_as=None, prefix="", ready=True):
    address = upstream.address if isinstance(upstream, Upstream) else upstream
    return {"slot": slot, "address": address, "prefix": prefix, "serve_as": serve_as,
            "ready": ready}


def model(name="m", versions=None, **more):
    """versions: {"v1": (weight, [replica or Upstream or address, ...])}"""
    out = {"name": name, "aliases": [], "hold_ms": 5000, "hold_max": 100, "expected": False,
           "created": 1700000000, **more, "versions": []}
    for v, (weight, replicas) in (versions or {}).items():
        rows = []
        for r in replicas:
            row = dict(r) if isinstance(r, dict) else replica(r)
            row["serve_as"] = row["serve_as"] or f"{name}@{v}"
            rows.append(row)
        out["versions"].append({"name": v, "weight": weight, "replicas": rows})
    return out


LIMITS = {"head_bytes": 16384, "body_bytes": 1 << 20, "connections": 1000,
          "client_buffer_bytes": 65536}
TIMEOUTS = {"head": 20000, "body": 20000, "idle": 60000, "send": 20000, "connect": 2000,
            "first_byte": 20000, "between_bytes": 20000, "upstream_idle": 30000}


class Gateway:
    def __init__(self, box, workers=2, addresses=("127.0.0.1",), before=(), models=None,
                 limits=None, timeouts=None, extra=None, certificate=None):
        self.box, self.workers, self.before = box, workers, list(before)
        self.limits = {**LIMITS, **(limits or {})}
        self.timeouts = {**TIMEOUTS, **(timeouts or {})}
        self.extra = extra or {}  # further members of each table
        self.epoch = 0
        self.models = []
        self.slots = {}
        self.connection = None
        self.received = []
        self.process = None
        self.counters = Counters()
        self.path = str(box.folder / f"gateway{len(box.owned)}.sock")
        self.control = socket.socket(socket.AF_UNIX)
        self.control.bind(self.path)
        self.control.listen(8)
        self.listeners, self.addresses = [], []
        for host in addresses:
            self._listen(host)
        self.certificate = certificate  # then the last address speaks TLS
        if certificate:
            self._listen("127.0.0.1")
        box.own(self)
        self.start()
        if models is not None:
            self.publish(models)

    def _listen(self, host):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        port = 0
        for _ in range(self.workers):
            s = socket.socket(family)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            s.bind((host, port))
            s.listen(1024)
            s.setblocking(False)
            port = s.getsockname()[1]
            self.listeners.append(s)
        self.addresses.append((host, port))

    @property
    def address(self):
        return self.addresses[0]

    @property
    def pid(self):
        return self.process.pid

    # --- life ---

    def start(self):
        """Starts it; reads its hello."""
        fds = [self.control.fileno(), self.counters.fd, *(s.fileno() for s in self.listeners)]
        argv = [binary("segue"), "gateway", "--control-fd", fds[0], "--counters-fd", fds[1],
                "--workers", self.workers, "--listen-fds", ",".join(map(str, fds[2:]))]
        for i, (host, port) in enumerate(self.addresses):
            tls = "https://" if self.certificate and i == len(self.addresses) - 1 else ""
            argv += ["--listen", f"{tls}{'[' + host + ']' if ':' in host else host}:{port}"]
        self.process = self.box.start("gateway", argv, pass_fds=fds, before=self.before)
        self.connect()

    def connect(self):
        """A new manager comes: the hello, with the descriptors' count."""
        if self.connection:
            self.connection.close()
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(1)
        self.connection.connect(self.path)
        self.buffer, self.received = b"", []
        self.hello = self.message()
        assert self.hello["type"] == "hello", self.hello
        if self.certificate:
            self.send_certificate(self.certificate)
        return self.hello

    def forget(self):
        """The manager is gone."""
        self.connection.close()
        self.connection = None

    def message(self):
        """The next message of the gateway."""
        until = time.monotonic() + 20 * SLOW
        while len(self.buffer) < 4 or len(self.buffer) < 4 + struct.unpack(
                "<I", self.buffer[:4])[0]:
            try:
                data, fds, _, _ = socket.recv_fds(self.connection, 65536, 250)
            except TimeoutError:
                assert self.process.running(), "the gateway has ended"
                assert time.monotonic() < until, "no message of the gateway"
                continue
            self.received += fds
            if not data:
                raise EOFError("the gateway has closed its control connection")
            self.buffer += data
        n = struct.unpack("<I", self.buffer[:4])[0]
        value, self.buffer = json.loads(self.buffer[4:4 + n]), self.buffer[4 + n:]
        return value

    def send(self, value):
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.connection.sendall(struct.pack("<I", len(data)) + data)

    def send_certificate(self, certificate):
        self.send({"type": "certificate", "chain": certificate.chain, "key": certificate.key})

    # --- tables ---

    def slot(self, address):
        return self.slots.setdefault(address, len(self.slots))

    def table(self, models=None):
        """The next table, as the manager would send it."""
        if models is not None:
            self.models = [models] if isinstance(models, dict) else models
        for m in self.models:
            for v in m["versions"]:
                for r in v["replicas"]:
                    if r["slot"] is None:
                        r["slot"] = self.slot(r["address"])
        self.epoch += 1
        return {"type": "table", "epoch": self.epoch, "limits": self.limits,
                "timeouts": self.timeouts, "models": self.models, **self.extra}

    def publish(self, models=None):
        """Sends a table and waits for its acknowledgement: {"epoch", "acked_ns"}."""
        self.send(self.table(models))
        return self.acked(self.epoch)

    def acked(self, epoch):
        while True:
            m = self.message()
            if m["type"] == "refused":
                raise Refused(m["message"])
            if m["type"] == "ack" and m["epoch"] >= epoch:
                return m

    def weights(self, **by_version):
        """Other weights for the only model; published."""
        for v in self.models[0]["versions"]:
            v["weight"] = by_version.get(v["name"], 0)
        return self.publish()

    # --- asking ---

    def wire(self, **more):
        return Wire(self.address, **more)

    def tls(self, context=None, **more):
        """A connection over TLS; an end without close_notify is an error."""
        w = Wire(self.addresses[-1], **more)
        w.s = (context or self.certificate.client()).wrap_socket(
            w.s, server_hostname="segue.test", suppress_ragged_eofs=False)
        return w

    def ask(self, data, method="POST"):
        """One request on a connection of its own."""
        with self.wire() as w:
            return w.ask(data, method)

    # --- looking ---

    def replica(self, upstream):
        return self.counters.replica(self.slot(upstream.address))

    def rss(self):
        with open(f"/proc/{self.pid}/statm") as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE")

    def cpu_seconds(self):
        with open(f"/proc/{self.pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def settled(self, seconds=10):
        """Waits until no exchange is in flight and none is held."""
        def quiet():
            c = self.counters.all()
            return (all(self.counters.replica(s)["in_flight"] == 0 for s in self.slots.values())
                    and c["held"] == 0
                    and c["requests"] + c["rejected"] == c["answered"] + c["unanswered"])
        wait_until(quiet, seconds, "nothing in flight, nothing held, and the counters add up")

    def close(self):
        if self.process and self.process.running():
            if self.connection:
                try:
                    self.send({"type": "stop", "drain_ms": 0})
                except OSError:
                    self.process.signal(signal.SIGTERM)
            else:
                self.process.signal(signal.SIGTERM)
                self.process.signal(signal.SIGTERM)
        if self.process:
            self.process.end()
        for s in self.listeners:
            s.close()
        for fd in self.received:
            os.close(fd)
        if self.connection:
            self.connection.close()
        self.control.close()
        self.counters.close()
