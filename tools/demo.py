#!/usr/bin/env python3
"""Shows an update under load: serves tiny-mt v1, puts a steady mix of streamed and
plain translations on it, deploys v2 while they run, and prints what happened.

`./dev demo` builds and runs this.  Everything is real: the engines, the gateway,
and the load, which verifies every answer.  What it starts it also ends: at Ctrl-C,
or by itself with --once.
"""

import argparse
import collections
import contextlib
import fcntl
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL = "hy-mt"
PROMPT = "将以下文本翻译为英语，注意只需要输出翻译后的结果，不要额外解释：\n\n"
REQUESTS_WANTED = 2000
CONNECTIONS = 16  # as many as one engine decodes together
BEFORE, AFTER = 3.0, 2.0  # seconds of load before the deploy and after its end
PATIENCE = 180.0


class Trouble(Exception):
    """Something that ends the demo, with a sentence for the person before it."""


# --- what is drawn ------------------------------------------------------------

BARS = "▁▂▃▄▅▆▇█"
COLOURS = {"dim": "2", "bold": "1", "green": "32", "red": "31", "yellow": "33", "cyan": "36",
           "blue": "34"}


class Screen:
    """A block of lines that is drawn over itself; plain lines where that cannot be."""

    def __init__(self, out):
        self.out = out
        self.live = out.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        self.drawn = 0

    def ink(self, colour, text):
        return f"\033[{COLOURS[colour]}m{text}\033[0m" if self.live else text

    def block(self, lines):
        if self.drawn:
            self.out.write(f"\033[{self.drawn}A")
        for line in lines:
            self.out.write(f"\033[2K{line}\n")
        self.drawn = len(lines)
        self.out.flush()

    def line(self, text=""):
        self.drawn = 0
        print(text, file=self.out, flush=True)


def width(text):
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def fit(text, columns):
    """The text cut or filled to so many columns."""
    if width(text) > columns:
        while width(text) > columns - 1:
            text = text[:-1]
        text += "…"
    return text + " " * (columns - width(text))


def sparkline(values, columns):
    values = list(values)[-columns:]
    most = max(values, default=0) or 1
    return "".join(BARS[min(7, int(v / most * 7.999))] for v in values)


# --- processes ----------------------------------------------------------------

def program(folder, name):
    """An executable of the build folder."""
    for place in ("", "src/app", "src/engine", "bench"):
        path = Path(folder, place, name)
        if os.access(path, os.X_OK) and path.is_file():
            return str(path)
    raise Trouble(f"{name} is not in {folder}; ./dev build makes it")


def start_time(pid):
    """With the pid it names one process; None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def wait_for(check, seconds):
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            return False
        time.sleep(0.03)
    return True


def free_port(wanted):
    for port in (wanted, 0):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                s.bind(("127.0.0.1", port))
                return s.getsockname()[1]
    raise Trouble("no free port on 127.0.0.1")


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=5)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Segue:
    """`segue serve` with one model, in a folder of its own."""

    def __init__(self, build, folder, port):
        self.folder, self.port = folder, port
        self.socket = folder / "admin.sock"
        self.program = program(build, "segue")
        config = folder / "segue.yaml"
        config.write_text(f"""\
# Written by ./dev demo.
listen: 127.0.0.1:{port}
workers: 2
state: {folder}
models:
  {MODEL}:
    serve: v1
    versions:
      v1: {{ engine: builtin, path: {ROOT}/models/tiny-mt-v1.gguf }}
    update: {{ settle_requests: {REQUESTS_WANTED}, settle: 120s }}
""")
        self.log = open(folder / "segue.log", "wb")
        self.process = subprocess.Popen([self.program, "serve", "-c", str(config)],
                                        stdin=subprocess.DEVNULL, stdout=self.log,
                                        stderr=subprocess.STDOUT, start_new_session=True)
        self.family = {}  # pid -> start time, of all that it was seen to have started
        self.remember(self.process.pid)

    def remember(self, pid):
        if pid and pid not in self.family and start_time(pid):
            self.family[pid] = start_time(pid)

    def admin(self, path):
        c = UnixConnection(self.socket)
        try:
            c.request("GET", f"/admin/v1/{path}")
            return json.loads(c.getresponse().read())
        finally:
            c.close()

    def status(self):
        """The model's part of the status; {} while there is none."""
        try:
            whole = self.admin("status")
        except (OSError, ValueError, http.client.HTTPException):
            return {}
        self.remember((whole.get("gateway") or {}).get("pid"))
        models = [m for m in whole.get("models", []) if m.get("name") == MODEL]
        for version in models[0].get("versions", []) if models else []:
            for replica in version.get("replicas", []):
                self.remember(replica.get("pid"))
        return models[0] if models else {}

    def ready(self):
        if self.process.poll() is not None:
            raise Trouble(f"segue ended with {self.process.returncode}:\n{self.last_words()}")
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            c.request("GET", "/readiness")
            return c.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            c.close()

    def last_words(self):
        return (self.folder / "segue.log").read_text(errors="replace")[-1500:]

    def command(self, *words):
        return [self.program, "--socket", str(self.socket), *words]

    def translate(self, version, text):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            c.request("POST", "/v1/chat/completions", json.dumps({
                "model": f"{MODEL}@{version}", "max_tokens": 64, "temperature": 0,
                "messages": [{"role": "user", "content": PROMPT + text}]}),
                {"Content-Type": "application/json"})
            answer = json.loads(c.getresponse().read())
            return answer["choices"][0]["message"]["content"].strip()
        except (OSError, ValueError, KeyError, IndexError, http.client.HTTPException) as error:
            raise Trouble(f"{MODEL}@{version} did not translate {text!r}: {error!r}") from None
        finally:
            c.close()

    def left_over(self):
        return [pid for pid, since in self.family.items() if start_time(pid) == since]

    def stop(self):
        """Ends it with its engines; returns the pids that had to be killed."""
        if self.process.poll() is None:
            self.status()
            self.process.send_signal(signal.SIGTERM)
            # Who presses Ctrl-C again while the answers under way end wants it now.
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: self.process.send_signal(signal.SIGTERM))
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(20)
        wait_for(lambda: not self.left_over(), 5)
        killed = self.left_over()
        for pid in killed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.log.close()
        return killed


class Load:
    """segue-load, and what it last said."""

    def __init__(self, build, folder, port):
        self.switches = folder / "switches"
        self.switches.write_text("")
        self.rows = collections.deque(maxlen=4000)
        self.final = None
        self.process = subprocess.Popen(
            [program(build, "segue-load"), f"http://127.0.0.1:{port}", "--model", MODEL,
             "--connections", str(CONNECTIONS), "--streams", "0.5", "--max-tokens", "24",
             "--temperature", "0", "--sentences", str(ROOT / "models/golden.zh-en.tsv"),
             "--check-version", "--switch-log", str(self.switches), "--duration", "100000",
             "--report", "0.25", "--json"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            start_new_session=True)
        self.thread = threading.Thread(target=self.read, daemon=True)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            row = json.loads(line)
            if "t" in row:
                self.rows.append(row)
            else:
                row.pop("series", None)
                self.final = row

    def switched(self, began_ns, version):
        """From now on nothing that starts may be answered by another version."""
        with self.switches.open("a") as f:
            f.write(f"{time.monotonic_ns()} {version} {began_ns}\n")

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.thread.join(10)
        if not self.final:
            raise Trouble(f"the load generator said nothing: {self.process.stderr.read()}")
        return self.final


# --- the demo -----------------------------------------------------------------

class Demo:
    def __init__(self, build, folder, port, screen):
        self.screen, self.folder = screen, folder
        self.segue = Segue(build, folder, port)
        self.load = None
        self.deploy = None
        self.build = build
        self.began_ns = 0
        self.phases = []  # [name, began, ended or None]
        self.told_by_deploy = []
        self.switched = False
        self.told = 0.0

    def wait_ready(self):
        if not wait_for(self.segue.ready, 60):
            raise Trouble(f"segue was not ready within 60 s:\n{self.segue.last_words()}")

    def follow(self):
        """Reads the steps that `segue deploy` tells: "   0.4 s  warming: detail"."""
        for line in self.deploy.stderr:
            self.told_by_deploy.append(line)
            name = re.match(r" *[0-9.]+ s  ([a-z ]+)", line)
            if name and name.group(1) != "done":
                self.phase(name.group(1))
        self.phase("")

    def phase(self, name):
        """The update is now in this phase ('' when it is over)."""
        current = self.phases[-1][0] if self.phases and self.phases[-1][2] is None else ""
        if name == current:
            return
        now = time.monotonic()
        if current:
            self.phases[-1][2] = now
        if name:
            self.phases.append([name, now, None])
        # These phases begin when the last worker has acknowledged the new route.
        if name in ("draining", "settling") and not self.switched:
            self.switched = True
            self.load.switched(self.began_ns, "v2")

    def watch(self, seconds=None, until=None):
        """Draws for so many seconds, or until something is true."""
        end = time.monotonic() + (seconds or PATIENCE)
        while time.monotonic() < end:
            self.segue.status()
            if self.load.process.poll() is not None:
                raise Trouble(f"the load generator ended: {self.load.process.stderr.read()}")
            if self.segue.process.poll() is not None:
                raise Trouble(f"segue ended under load:\n{self.segue.last_words()}")
            self.draw()
            if until and until():
                return
            time.sleep(0.12)
        if until:
            raise Trouble(f"the update did not end within {PATIENCE:g} s")

    def draw(self):
        if not self.load.rows:
            return
        recent = list(self.load.rows)[-4:]
        span = sum(r["seconds"] for r in recent)
        rate = sum(r["ok"] for r in recent) / span
        shares = collections.Counter()
        for row in recent:
            shares.update(row["versions"])
        last = recent[-1]
        if self.screen.live:
            self.screen.block(self.picture(rate, shares, last))
        elif time.monotonic() - self.told >= 1:
            self.told = time.monotonic()
            total = sum(shares.values()) or 1
            share = "  ".join(f"{v} {n * 100 // total:3d} %" for v, n in sorted(shares.items()))
            name, took = self.current()
            self.screen.line(f"{last['t']:6.1f} s  {name:<10}{took:5.1f} s  {rate:6.0f} requests/s  "
                             f"{share}  in flight {last['in_flight']}  "
                             f"failed {last['total_failed']}")

    def current(self):
        if self.phases and self.phases[-1][2] is None:
            return self.phases[-1][0], time.monotonic() - self.phases[-1][1]
        return ("serving" if not self.phases else "updated"), 0.0

    def picture(self, rate, shares, last):
        ink, columns = self.screen.ink, min(shutil.get_terminal_size().columns, 100)
        room = max(20, columns - 30)
        total = sum(shares.values()) or 1
        new = round(room * shares["v2"] / total)
        old = room - new if shares["v1"] else 0
        bar = ink("blue", "█" * old) + ink("green", "█" * (room - old if shares["v2"] else 0))
        failed = last["total_failed"]
        return [
            "",
            f"  update       {self.steps(columns - 15) or ink('dim', 'none yet')}",
            f"  requests/s   {sparkline((r['rps'] for r in self.load.rows), room)} {rate:.0f}",
            f"  versions     {bar} {ink('blue', 'v1')} {shares['v1'] * 100 // total} %  "
            f"{ink('green', 'v2')} {shares['v2'] * 100 // total} %",
            f"  answers      {last['total_ok']:,} right, "
            + ink("red" if failed else "green", f"{failed} failed")
            + f", {last['in_flight']} in flight, half of them streamed",
            f"  time         p50 {last['p50_us'] / 1000:.0f} ms, p99 {last['p99_us'] / 1000:.0f} ms",
            "",
        ]

    def steps(self, room):
        """The phases with their times, the newest ones if there is no room for all."""
        line, used = "", 0
        for phase, began, ended in reversed(self.phases):
            took = (ended or time.monotonic()) - began
            text = f"{phase} {took:.1f} s" if took >= 1 else f"{phase} {took * 1000:.0f} ms"
            used += len(text) + 2
            if used > room:
                break
            line = self.screen.ink("dim" if ended else "yellow", text) + "  " + line
        return line

    def run_update(self):
        """v1 under load, then v2 beside it and in its place; the receipt and the load's view."""
        self.load = Load(self.build, self.folder, self.segue.port)
        self.watch(seconds=BEFORE)
        say = self.segue.command("deploy", MODEL, str(ROOT / "models/tiny-mt-v2.gguf"),
                                 "--version", "v2")
        self.began_ns = time.monotonic_ns()
        self.deploy = subprocess.Popen(say, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                       stderr=subprocess.PIPE, text=True, start_new_session=True)
        following = threading.Thread(target=self.follow, daemon=True)
        following.start()
        self.watch(until=lambda: self.deploy.poll() is not None)
        following.join(10)
        if self.deploy.returncode:
            raise Trouble(f"the deploy failed ({self.deploy.returncode}):\n"
                          + "".join(self.told_by_deploy))
        self.watch(seconds=AFTER)
        return self.receipt(), self.load.stop()

    def receipt(self):
        done = subprocess.run(self.segue.command("receipt", "--json"), capture_output=True,
                              text=True, timeout=20)
        if done.returncode:
            raise Trouble(f"segue receipt failed: {done.stderr}")
        receipt = json.loads(done.stdout)
        return receipt.get("receipt", receipt)

    def say_receipt(self):
        done = subprocess.run(self.segue.command("receipt"), capture_output=True, text=True,
                              timeout=20)
        self.screen.line(done.stdout.rstrip() or done.stderr)

    def side_by_side(self, wanted=5):
        """Sentences whose translations differ, by both versions."""
        rows = []
        pairs = (ROOT / "models/golden.zh-en.tsv").read_text().splitlines()
        for pair in pairs[:60]:
            source, reference = pair.split("\t")[:2]
            old, new = (self.segue.translate(v, source) for v in ("v1", "v2"))
            if old != new:
                rows.append((source, old, new, reference))
            if len(rows) == wanted:
                break
        return rows

    def say_side_by_side(self, rows):
        self.screen.line("The same sentences by both versions (both still run, v1 as the spare):\n")
        for source, old, new, reference in rows:
            self.screen.line(f"  {source}")
            self.screen.line(f"    {self.screen.ink('blue', 'v1')}         {old}")
            self.screen.line(f"    {self.screen.ink('green', 'v2')}         {new}")
            self.screen.line(self.screen.ink("dim", f"    reference  {reference}") + "\n")

    def stop(self):
        if self.deploy and self.deploy.poll() is None:
            self.deploy.terminate()
            self.deploy.wait()
        if self.load and self.load.process.poll() is None:
            self.load.process.kill()
            self.load.process.wait()
        return self.segue.stop()


def promises(receipt, load):
    """What must hold; [(sentence, kept)]."""
    return [
        (f"requests during the update: {receipt['requests']:,} (at least {REQUESTS_WANTED:,})",
         receipt["requests"] >= REQUESTS_WANTED),
        (f"failed: {receipt['failed']}", receipt["failed"] == 0),
        (f"truncated: {receipt['truncated']}", receipt["truncated"] == 0),
        (f"started on v1 after the switch: {receipt['started_on_old_after_switch']}",
         receipt["started_on_old_after_switch"] == 0),
        (f"the switch took {receipt['switch_us'] / 1000:.2f} ms (under 5)",
         receipt["switch_us"] < 5000),
        (f"answers that the clients verified: {load['ok']:,}, {load['failed']} of them wrong",
         load["failed"] == 0 and load["ok"] > 0),
        (f"by the clients' clocks, answers of v1 to requests sent after it: "
         f"{load['on_old_after_switch']}", load["on_old_after_switch"] == 0 and load["switches"] > 0),
    ]


def say_promises(screen, list_of_promises):
    screen.line("What was promised:\n")
    for sentence, kept in list_of_promises:
        mark = screen.ink("green", "✓") if kept else screen.ink("red", "✗")
        screen.line(f"  {mark} {sentence}")
    screen.line()


def say_what_to_try(screen, segue):
    at = f"http://127.0.0.1:{segue.port}"
    tool = f"{os.path.relpath(segue.program)} --socket {os.path.relpath(segue.socket)}"
    screen.line(f"""\
It stays up. Open {screen.ink('bold', at + '/')} or try:

  {tool} status
  {tool} translate '昨天晚上我和朋友一起吃了火锅。' --to en
  {tool} rollback {MODEL}
  {tool} switch {MODEL} v2

  curl -N {at}/v1/chat/completions -H 'Content-Type: application/json' -d \\
    '{{"model":"{MODEL}","stream":true,"messages":[{{"role":"user","content":"{PROMPT.strip()}\\n\\n我需要作笔记。"}}]}}'

  python3 -c 'from openai import OpenAI
c = OpenAI(base_url="{at}/v1", api_key="none")
print(c.chat.completions.create(model="{MODEL}", messages=[{{"role": "user",
      "content": "Translate the following segment into Chinese, without additional explanation.\\n\\nI like tea."}}])
      .choices[0].message.content)'

Ctrl-C ends everything.""")


def stay(segue):
    """Until Ctrl-C, or until segue ends by itself."""
    while segue.process.poll() is None:
        segue.status()  # remembers engines that were started meanwhile
        time.sleep(0.5)
    raise Trouble(f"segue ended:\n{segue.last_words()}")


@contextlib.contextmanager
def own_folder():
    """run/demo, or a temporary one where that is taken or its path is too long for sockets."""
    folder = ROOT / "run" / "demo"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / "demo.lock", "w") as lock:
        if len(str(folder)) <= 70 and lock_taken(lock):
            end_earlier(folder)
            shutil.rmtree(folder)
            folder.mkdir(mode=0o700)
            yield folder
            return
    with tempfile.TemporaryDirectory(prefix="segue-demo-") as name:
        yield Path(name)


def lock_taken(lock):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False


def end_earlier(folder):
    """A demo that was killed may have left its segue running: that one is ours to end."""
    c = UnixConnection(folder / "admin.sock")
    try:
        c.request("POST", "/admin/v1/stop", '{"engines":true}', {"Content-Type": "application/json"})
        c.getresponse().read()
    except (OSError, http.client.HTTPException):
        return
    finally:
        c.close()
    if not wait_for(lambda: not answers(folder / "admin.sock"), 20):
        raise Trouble(f"an earlier demo still runs in {folder} and does not end")


def answers(path):
    with socket.socket(socket.AF_UNIX) as s:
        return s.connect_ex(str(path)) == 0


def show(args, screen, folder):
    """The whole demo; True if the promises held."""
    screen.line("Starting segue with tiny-mt v1 …")
    demo = Demo(args.bin, folder, free_port(args.port), screen)
    try:
        demo.wait_ready()
        screen.line(f"It serves at http://127.0.0.1:{demo.segue.port}. {CONNECTIONS} clients ask, "
                    f"half of them for streams; then v2 is deployed.")
        receipt, load = demo.run_update()
        screen.line()
        demo.say_side_by_side(demo.side_by_side())
        demo.say_receipt()
        screen.line()
        checked = promises(receipt, load)
        say_promises(screen, checked)
        held = all(kept for _, kept in checked)
        for failure in load["failures"]:
            screen.line(screen.ink("red", f"  {failure}"))
        if not args.once:
            with contextlib.suppress(KeyboardInterrupt):
                say_what_to_try(screen, demo.segue)
                stay(demo.segue)
            screen.line()
    finally:
        killed = demo.stop()
        if killed:
            screen.line(f"These did not end by themselves and were killed: {killed}")
    if args.json:
        print(json.dumps({**receipt, "load": load, "promises_kept": held}), flush=True)
    return held and not killed


def interrupt(signum, frame):
    raise KeyboardInterrupt


def main():
    parser = argparse.ArgumentParser(prog="./dev demo", description=__doc__.splitlines()[0])
    parser.add_argument("--bin", default="build/release", help="the build folder")
    parser.add_argument("--once", action="store_true", help="end when the update is done")
    parser.add_argument("--json", action="store_true", help="print the receipt as the last line")
    parser.add_argument("--port", type=int, default=8080, help="the port to prefer (8080)")
    args = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    # With --json standard output is for programs.
    screen = Screen(sys.stderr if args.json else sys.stdout)
    try:
        with own_folder() as folder:
            held = show(args, screen, folder)
    except Trouble as trouble:
        screen.line(f"demo: {trouble}")
        return 1
    except KeyboardInterrupt:
        screen.line("\nEnded.")
        return 130
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
