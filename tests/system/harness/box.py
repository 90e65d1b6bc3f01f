"""A box is what one test owns: a short folder, processes, and what must be closed.

Every process of a box, and every descendant, has SEGUE_TEST_BOX in its environment. When the
test is over nothing with that mark may live, and no sanitizer may have said anything.
"""
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from .wait import wait_until

ROOT = Path(__file__).resolve().parents[3]
BUILD = Path(os.environ.get("SEGUE_TEST_BUILD", ROOT / "build" / "asan")).resolve()
LOGS = Path(os.environ.get("SEGUE_TEST_LOGS", ROOT / "build" / "test-logs"))
SANITIZER = os.environ.get("SEGUE_TEST_SANITIZER", "address" if "asan" in BUILD.name else "")
SLOW = 4 if SANITIZER else 1  # how many times slower things are here

REPORTS = re.compile(
    rb"ERROR: (Address|Leak)Sanitizer|WARNING: ThreadSanitizer|runtime error:|"
    rb"Sanitizer:DEADLYSIGNAL|FATAL: ThreadSanitizer")


def binary(name):
    """An executable of the build under test."""
    for folder in ("", "src/app", "src/engine", "bench"):
        path = BUILD / folder / name
        if path.is_file():
            return str(path)
    raise FileNotFoundError(f"{name} is not in {BUILD}; build it, or set SEGUE_TEST_BUILD")


def sanitizer_environment(folder):
    """Reports go to files of their own, so that none is lost with a closed standard error."""
    supp = ROOT / "tests" / "lsan.supp"
    common = f"log_path={folder}/sanitizer"
    return {
        "ASAN_OPTIONS": f"{common}:detect_leaks=1:exitcode=99:detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": f"{common}:print_stacktrace=1:halt_on_error=1:exitcode=99",
        "LSAN_OPTIONS": f"{common}:suppressions={supp}:print_suppressions=0:exitcode=99",
        "TSAN_OPTIONS": f"{common}:exitcode=66:second_deadlock_stack=1:history_size=4",
    }


class Process:
    """A process group with its output in a file."""

    def __init__(self, box, name, argv, env=None, pass_fds=(), cwd=None, stdin=subprocess.DEVNULL,
                 before=()):
        self.box, self.name, self.argv = box, name, [str(a) for a in argv]
        self.log = box.log_path(name)
        self.expect = {0}  # exit statuses that are fine; signals are negative
        with open(self.log, "ab") as out:
            self.popen = subprocess.Popen(
                [*before, *self.argv], env={**box.env, **(env or {})}, pass_fds=pass_fds,
                cwd=cwd or box.folder, stdin=stdin, stdout=out, stderr=subprocess.STDOUT,
                start_new_session=True)
        self.pid = self.popen.pid

    def text(self):
        return self.log.read_bytes().decode("utf-8", "replace")

    def running(self):
        return self.popen.poll() is None

    def signal(self, number):
        if self.running():
            self.popen.send_signal(number)

    def kill9(self):
        self.expect.add(-signal.SIGKILL)
        self.signal(signal.SIGKILL)
        self.popen.wait(10)

    def wait(self, seconds=20):
        return self.popen.wait(seconds)

    def end(self, seconds=20):
        """Asks it to end, and checks how it did."""
        self.signal(signal.SIGTERM)
        try:
            self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait(10)
            self.box.complain(f"{self.name} (pid {self.pid}) did not end within {seconds} s of "
                              f"SIGTERM; its last lines:\n{tail(self.log)}")
            return
        if self.popen.returncode not in self.expect:
            self.box.complain(f"{self.name} (pid {self.pid}) ended with status "
                              f"{self.popen.returncode}; its last lines:\n{tail(self.log)}")


def tail(path, lines=30):
    try:
        text = Path(path).read_bytes()[-20000:].decode("utf-8", "replace")
    except OSError as e:
        return f"({e})"
    return "\n".join("    " + line[:500] for line in text.splitlines()[-lines:])


def parent_of(pid):
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            return int(f.read().rsplit(b")", 1)[1].split()[1])
    except (OSError, IndexError):
        return 0


class Box:
    def __init__(self, name):
        self.name = name
        self.folder = Path(tempfile.mkdtemp(prefix="sg-", dir="/tmp"))  # sun_path is short
        self.mark = f"SEGUE_TEST_BOX={self.folder.name}"
        self.env = {**os.environ, **sanitizer_environment(self.folder),
                    "SEGUE_TEST_BOX": self.folder.name, "LC_ALL": "C.UTF-8"}
        self.env.pop("SEGUE_SOCKET", None)
        self.owned, self.complaints = [], []
        self.allow_reports = False

    # --- owning ---

    def own(self, thing):
        """thing.close() is called at the end, the newest first."""
        self.owned.append(thing)
        return thing

    def log_path(self, name):
        path, n = self.folder / f"{name}.log", 1
        while path.exists():
            path, n = self.folder / f"{name}-{n}.log", n + 1
        return path

    def start(self, name, argv, **more):
        p = Process(self, name, argv, **more)
        self.own(_Ending(p))
        return p

    def complain(self, text):
        self.complaints.append(text)

    # --- the end ---

    def processes(self):
        """Pids that carry the mark of this box."""
        found = []
        for entry in os.listdir("/proc"):
            if not entry.isdigit():
                continue
            try:
                with open(f"/proc/{entry}/environ", "rb") as f:
                    env = f.read().split(b"\0")
                with open(f"/proc/{entry}/stat", "rb") as f:
                    state = f.read().rsplit(b")", 1)[1].split()[0]
            except OSError:
                continue
            if self.mark.encode() in env and state != b"Z":
                found.append(int(entry))
        return found

    def _leaked(self):
        try:
            wait_until(lambda: not self.processes(), 5, "all processes of the test have ended")
            return
        except AssertionError:
            pass
        for pid in self.processes():
            try:
                command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                os.kill(pid, signal.SIGKILL)
                self.complain(f"leaked process {pid}: {command}")
            except OSError:
                pass  # it ended at last
        time.sleep(0.05)

    def _reports(self):
        for path in sorted(self.folder.rglob("*")):
            if not path.is_file() or path.is_symlink() or path.suffix in (".db", ".gguf"):
                continue
            data = path.read_bytes()
            if path.name.startswith("sanitizer.") and data.strip() or REPORTS.search(data):
                self.complain(f"a sanitizer has spoken in {path.name}:\n"
                              + data.decode("utf-8", "replace")[:12000])

    def close(self, failed=False):
        """Ends everything; returns what was wrong with it."""
        while self.owned:
            thing = self.owned.pop()
            try:
                thing.close()
            except Exception as e:  # the rest must be closed all the same
                self.complain(f"closing {thing!r}: {e!r}")
        self._leaked()
        if not self.allow_reports:
            self._reports()
        if failed or self.complaints:
            self._keep()
        shutil.rmtree(self.folder, ignore_errors=True)
        return self.complaints

    def _keep(self):
        """The logs of a test that failed go where they can be read."""
        target = LOGS / "system" / re.sub(r"[^A-Za-z0-9_.-]+", "_", self.name)[:120]
        shutil.rmtree(target, ignore_errors=True)
        for path in self.folder.rglob("*"):
            if path.is_file() and not path.is_symlink() and path.suffix != ".gguf":
                to = target / path.relative_to(self.folder)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, to)

    def logs(self):
        """The ends of all logs, for a failure's report."""
        parts = []
        for path in sorted(self.folder.rglob("*.log")):
            if path.stat().st_size:
                parts.append(f"--- {path.relative_to(self.folder)}\n{tail(path)}")
        return "\n".join(parts)


class _Ending:
    def __init__(self, process):
        self.process = process

    def __repr__(self):
        return self.process.name

    def close(self):
        self.process.end()
