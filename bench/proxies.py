"""The programs that are compared: their upstream, how each is set up, what each costs.

All three proxies do the same work: keep-alive on both sides, the same three
fields towards the upstream (Host, X-Real-IP, X-Forwarded-For), no access log, no
buffering of answers.  Everything runs on loopback, in one temporary folder.
"""

import http.client
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def raise_file_limit(wanted=65536):
    """How many clients a proxy may have: it needs two descriptors for each."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted, hard), max(wanted, hard)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return min(20000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2 - 100)


CLIENTS_MAX = raise_file_limit()


def program(build, name):
    """An executable of the build folder, or None."""
    for place in ("", "src/app", "bench"):
        path = Path(build, place, name)
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    return None


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(what, check, seconds=15.0):
    """Waits until check() is true; says what did not happen otherwise."""
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            raise SystemExit(f"bench: {what} did not happen within {seconds:g} s")
        time.sleep(0.02)


def answers(port, path="/health"):
    try:
        return get(port, path)[0] == 200
    except OSError:
        return False


def get(port, path):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        c.request("GET", path)
        r = c.getresponse()
        return r.status, r.read()
    finally:
        c.close()


def post(port, body, headers=()):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        c.request("POST", "/v1/chat/completions", json.dumps(body),
                  {"Content-Type": "application/json", **dict(headers)})
        r = c.getresponse()
        return r.status, r.read()
    finally:
        c.close()


class Program:
    """A process of ours with its children, on given cores; ended with its group."""

    def __init__(self, argv, cores=None, log=None, cwd=None):
        def pin():
            if cores:
                os.sched_setaffinity(0, cores)

        self.out = open(log, "wb") if log else subprocess.DEVNULL
        self.log = log
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=self.out,
                                        stderr=subprocess.STDOUT if log else subprocess.DEVNULL,
                                        cwd=cwd, start_new_session=True, preexec_fn=pin)

    def pids(self):
        """This process and all that descend from it."""
        children = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    stat = Path(f"/proc/{entry}/stat").read_text()
                except OSError:
                    continue
                children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry))
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo += children.get(pid, [])
        return found

    def cpu_seconds(self):
        """User and system time of all threads of the whole family."""
        total = 0
        for pid in self.pids():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total / TICKS

    def memory(self):
        """(RSS, PSS) in bytes of the whole family."""
        rss = pss = 0
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Rss:"):
                    rss += int(line.split()[1]) * 1024
                elif line.startswith("Pss:"):
                    pss += int(line.split()[1]) * 1024
        return rss, pss

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()
        if self.log:
            self.out.close()

    def last_words(self):
        return Path(self.log).read_text(errors="replace")[-2000:] if self.log else ""


class Upstream:
    """segue-answer: the engine's place."""

    def __init__(self, build, folder, name, cores, **options):
        self.name = name
        self.port = free_port()
        argv = [program(build, "segue-answer"), "--listen", f"127.0.0.1:{self.port}", "--name", name]
        for key, value in options.items():
            argv += [f"--{key.replace('_', '-')}", str(value)]
        self.program = Program(argv, cores, folder / f"answer-{name}-{self.port}.log")
        wait_for(f"segue-answer {name}", lambda: answers(self.port))

    def stats(self):
        return json.loads(get(self.port, "/stats")[1])

    def stop(self):
        self.program.stop()


class Proxy:
    """What all proxies have: a port, a program, a folder of their own."""

    name = ""
    checks_version = False
    last_answer = "none"

    def __init__(self, build, folder, upstreams, cores, workers, streaming=False):
        self.build, self.upstreams, self.workers = build, upstreams, workers
        self.streaming = streaming
        self.port = free_port()
        self.folder = folder / f"{self.name}-{self.port}"
        self.folder.mkdir()
        self.program = Program(self.command(), cores, self.folder / "log")
        try:
            wait_for(f"{self.name} on port {self.port}", self.ready)
        except SystemExit as failed:
            self.program.stop()
            raise SystemExit(f"{failed}\nlast answer: {self.last_answer}\n"
                             f"{self.program.last_words()}") from None

    def ready(self):
        if self.program.process.poll() is not None:
            raise SystemExit(f"bench: {self.name} has ended")
        try:
            body = {"model": "hy-mt", "messages": [{"role": "user", "content": "hi"}]}
            status, text = post(self.port, body)
            self.last_answer = f"{status}: {text[:300]!r}"
            return status == 200
        except (OSError, http.client.HTTPException) as error:
            self.last_answer = repr(error)
            return False

    def stop(self):
        self.program.stop()


class Nginx(Proxy):
    name = "nginx"

    def command(self):
        (self.folder / "nginx.conf").write_text(f"""
daemon off;
pid {self.folder}/pid;
error_log {self.folder}/error.log warn;
worker_processes {self.workers};
events {{ worker_connections {2 * CLIENTS_MAX}; multi_accept on; }}
http {{
    access_log off;
    client_body_temp_path {self.folder}/body;
    proxy_temp_path {self.folder}/proxy;
    fastcgi_temp_path {self.folder}/fastcgi;
    uwsgi_temp_path {self.folder}/uwsgi;
    scgi_temp_path {self.folder}/scgi;
    tcp_nodelay on;
    keepalive_timeout 3600s;
    keepalive_requests 1000000000;
    upstream engine {{
        server 127.0.0.1:{self.upstreams[0].port};
        keepalive 4096;
        keepalive_requests 1000000000;
        keepalive_timeout 3600s;
    }}
    server {{
        listen 127.0.0.1:{self.port} backlog=4096;
        location / {{
            proxy_pass http://engine;
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_read_timeout 300s;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
    }}
}}
""")
        return ["nginx", "-p", str(self.folder), "-c", str(self.folder / "nginx.conf")]

    @staticmethod
    def version():
        text = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr
        return text.strip().partition("nginx/")[2] or text.strip()


class Haproxy(Proxy):
    name = "haproxy"

    def command(self):
        # Without it HAProxy keeps a token for up to 200 ms, in the hope of more to send.
        no_delay = "option http-no-delay" if self.streaming else ""
        (self.folder / "haproxy.cfg").write_text(f"""
global
    nbthread {self.workers}
    maxconn {CLIENTS_MAX}
defaults
    mode http
    no log
    option http-keep-alive
    http-reuse always
    {no_delay}
    timeout connect 5s
    timeout client 3600s
    timeout server 3600s
    timeout http-keep-alive 3600s
frontend clients
    option forwardfor
    http-request set-header X-Real-IP %[src]
    bind 127.0.0.1:{self.port} backlog 4096
    default_backend engine
backend engine
    server engine 127.0.0.1:{self.upstreams[0].port} pool-max-conn 4096
""")
        return ["haproxy", "-f", str(self.folder / "haproxy.cfg")]

    @staticmethod
    def version():
        text = subprocess.run(["haproxy", "-v"], capture_output=True, text=True).stdout
        return text.split()[2] if text else "?"


class Segue(Proxy):
    name = "segue"
    checks_version = True
    models = 1
    limits = ""

    def command(self):
        versions = "".join(
            f"      {u.name}: {{ engine: openai, url: \"http://127.0.0.1:{u.port}\","
            f" served_model_name: {u.name} }}\n" for u in self.upstreams)
        models = "".join(f"  {name}:\n    serve: {self.upstreams[0].name}\n    versions:\n{versions}"
                         for name in ["hy-mt"] + [f"other-{i}" for i in range(1, self.models)])
        (self.folder / "segue.yaml").write_text(
            f"listen: 127.0.0.1:{self.port}\nworkers: {self.workers}\n"
            f"admin:\n  socket: {self.folder}/admin.sock\nstate: {self.folder}/run\n"
            f"{self.limits}models:\n{models}")
        return [program(self.build, "segue"), "serve", "-c", str(self.folder / "segue.yaml")]

    def switch(self, version):
        """(acknowledged, began) in CLOCK_MONOTONIC ns and the answer of `segue switch`."""
        began = time.monotonic_ns()
        done = subprocess.run([program(self.build, "segue"), "--socket", f"{self.folder}/admin.sock",
                               "switch", "hy-mt", version, "--json"],
                              capture_output=True, text=True, timeout=30)
        acknowledged = time.monotonic_ns()
        if done.returncode:
            raise SystemExit(f"bench: segue switch failed: {done.stderr}{done.stdout}")
        return acknowledged, began, json.loads(done.stdout)

    def version(self=None):
        return "this checkout"


class ManyModels(Segue):
    name = "segue-1000-models"
    models = 1000


ALL = {"nginx": Nginx, "haproxy": Haproxy, "segue": Segue}


def missing(build):
    """Those that cannot be measured here, with the reason."""
    reasons = {}
    for name in ("nginx", "haproxy"):
        if not shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin"):
            reasons[name] = "not installed"
    if not program(build, "segue"):
        reasons["segue"] = f"it is not in {build}"
    return reasons
