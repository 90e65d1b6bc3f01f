#!/usr/bin/env python3
"""Measures segue's gateway against nginx and HAProxy on this machine.

`./dev bench [CASE...]` builds, installs the peers and runs this.  Load and
upstream share one core, the proxy under test has another one for itself, and the
proxies take turns in short rounds, so that what else happens on the machine hits
all of them.  Each answer is verified by the load generator: a round with a failed
answer is an error, not a number.

The tables go to standard output, everything measured to build/bench.json; with
--write the tables also replace those in docs/performance.md.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import proxies  # noqa: E402

PAGE = Path(__file__).resolve().parent.parent / "docs" / "performance.md"
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
REQUIRED = ("host", "x-real-ip", "x-forwarded-for")


class Bench:
    def __init__(self, args, folder):
        self.build, self.folder = args.bin, folder
        self.rounds, self.seconds = args.rounds, args.seconds
        self.workers = 1
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise SystemExit("bench: two cores are needed, one for the proxy and one for the rest")
        self.proxy_cores, self.other_cores = {cores[1]}, {cores[0]}
        self.kinds = [k for n, k in proxies.ALL.items() if n not in proxies.missing(args.bin)]
        if args.only:
            self.kinds = [k for k in self.kinds if k.name in args.only.split(",")]
        self.tables = []
        self.data = {}
        self.running = []

    def upstream(self, name="v1", **options):
        self.running.append(proxies.Upstream(self.build, self.folder, name, self.other_cores,
                                             **options))
        return self.running[-1]

    def proxy(self, kind, upstreams, cores=None, **options):
        self.running.append(kind(self.build, self.folder, upstreams, cores or self.proxy_cores,
                                 self.workers, **options))
        return self.running[-1]

    def background(self, port, *options, check_version=False):
        self.running.append(Background(self, port, *options, check_version=check_version))
        return self.running[-1]

    def stop_all(self):
        while self.running:
            self.running.pop().stop()

    def load_command(self, port, *options, check_version=False):
        argv = [proxies.program(self.build, "segue-load"), f"http://127.0.0.1:{port}", "--json",
                *[str(o) for o in options]]
        return argv + (["--check-version"] if check_version else [])

    def load(self, port, *options, check_version=False):
        """One run of the load generator; any wrong answer ends the benchmark."""
        done = subprocess.run(self.load_command(port, *options, check_version=check_version),
                              capture_output=True, text=True,
                              preexec_fn=lambda: os.sched_setaffinity(0, self.other_cores))
        if done.returncode:
            raise SystemExit(f"bench: answers were not right: {done.stderr}{done.stdout[:3000]}")
        return json.loads(done.stdout)

    def measure(self, proxy, *options):
        """A run with the proxy's CPU time beside it."""
        before = proxy.program.cpu_seconds()
        result = self.load(proxy.port, *options, check_version=proxy.checks_version)
        result["cpu_seconds"] = proxy.program.cpu_seconds() - before
        return result

    def rounds_of(self, list_of_proxies, seconds, *options):
        """Alternating rounds after a short one to warm up; {name: [result...]}."""
        results = {p.name: [] for p in list_of_proxies}
        for p in list_of_proxies:
            self.measure(p, "--duration", 0.5, *options)
        for number in range(self.rounds):
            for p in list_of_proxies:
                say(f"round {number + 1} of {self.rounds}: {p.name}")
                results[p.name].append(self.measure(p, "--duration", seconds, *options))
        return results

    def table(self, title, heads, rows, notes=()):
        lines = [f"### {title}", "", "| " + " | ".join(heads) + " |",
                 "|" + "|".join("---" if i == 0 else "---:" for i in range(len(heads))) + "|"]
        lines += ["| " + " | ".join(str(c) for c in row) + " |" for row in rows]
        if notes:
            lines += [""] + list(notes)
        self.tables.append("\n".join(lines))
        print("\n" + self.tables[-1] + "\n", flush=True)


def say(text):
    print(f"\033[2m{text}\033[0m" if sys.stderr.isatty() else text, file=sys.stderr, flush=True)


def spread(values, digits=1):
    """median (least–most)"""
    return (f"{statistics.median(values):.{digits}f} "
            f"({min(values):.{digits}f}–{max(values):.{digits}f})")


def ratio(ours, theirs, digits=2):
    """Median of the ratios of rounds that followed each other."""
    return f"{statistics.median(a / b for a, b in zip(ours, theirs)):.{digits}f}"


def check_same_work(bench, list_of_proxies):
    """Each proxy must pass on the same fields, and keep its upstream connections."""
    body = {"model": "hy-mt", "messages": [{"role": "user", "content": "probe"}]}
    for p in list_of_proxies:
        upstream = p.upstreams[0]
        proxies.post(p.port, body, {"X-Probe": p.name})
        head = upstream.stats()["probe"].lower()
        absent = [f for f in REQUIRED if f"\n{f}:" not in head]
        if absent or f"x-probe: {p.name}" not in head:
            raise SystemExit(f"bench: {p.name} does not send {absent} upstream:\n{head}")


def case_gateway(bench):
    """Requests per second and CPU time per request; plain requests, kept-alive."""
    for connections in (64, 256):
        upstreams = [bench.upstream(bytes=500) for _ in bench.kinds]
        running = [bench.proxy(k, [u]) for k, u in zip(bench.kinds, upstreams)]
        check_same_work(bench, running)
        before = [u.stats()["accepted"] for u in upstreams]
        results = bench.rounds_of(running, bench.seconds, "--connections", connections,
                                  "--body-bytes", 300)
        opened = [u.stats()["accepted"] - b - 1 for u, b in zip(upstreams, before)]
        bench.stop_all()
        add_gateway(bench, connections, results, dict(zip(results, opened)))


def add_gateway(bench, connections, results, opened):
    cpu = {n: [r["cpu_seconds"] * 1e6 / r["ok"] for r in rs] for n, rs in results.items()}
    rate = {n: [r["rps"] for r in rs] for n, rs in results.items()}
    busy = {n: [r["cpu_seconds"] / r["seconds"] * 100 for r in rs] for n, rs in results.items()}
    bench.data[f"gateway_{connections}"] = {
        n: {"cpu_us_per_request": cpu[n], "requests_per_second": rate[n], "busy_percent": busy[n],
            "p50_us": [r["latency_us"]["p50"] for r in rs],
            "p99_us": [r["latency_us"]["p99"] for r in rs],
            "upstream_connections_opened": opened[n]} for n, rs in results.items()}
    heads = ["proxy", "requests/s", "core busy %", "CPU µs/request", "requests/s per core", "p99 µs",
             "upstream connections"]
    rows = [[n, spread(rate[n], 0), f"{statistics.median(busy[n]):.0f}", spread(cpu[n], 2),
             f"{1e6 / statistics.median(cpu[n]):.0f}",
             spread([r['latency_us']['p99'] for r in rs], 0), opened[n]]
            for n, rs in results.items()]
    notes = []
    if "segue" in results:
        for peer in results:
            if peer != "segue":
                notes.append(f"segue to {peer}: {ratio(rate['segue'], rate[peer])} × the requests/s, "
                             f"{ratio(cpu[peer], cpu['segue'])} × the requests per CPU second.")
    bench.table(f"gateway: {connections} connections, 300 B bodies, 500 B answers, 1 worker",
                heads, rows, notes)


def case_latency(bench):
    """What a proxy adds for one client that asks one thing after the other.

    All on one core: otherwise what is measured is how long a sleeping core takes to
    wake up, which on a virtual machine is more than everything else together.
    """
    upstream = bench.upstream(bytes=500)
    running = [bench.proxy(k, [upstream], bench.other_cores) for k in bench.kinds]
    options = ("--connections", 1, "--duration", min(bench.seconds, 2), "--body-bytes", 300)
    results = {"direct": []}
    results.update({p.name: [] for p in running})
    for number in range(bench.rounds):
        say(f"round {number + 1} of {bench.rounds}")
        results["direct"].append(bench.load(upstream.port, *options))
        for p in running:
            results[p.name].append(bench.measure(p, *options))

    def of(name, quantile):
        return [r["latency_us"][quantile] for r in results[name]]

    def added(name, quantile):
        return [a - b for a, b in zip(of(name, quantile), of("direct", quantile))]

    bench.data["latency"] = {n: {q: of(n, q) for q in ("p50", "p99")} for n in results}
    bench.table("latency: one connection, everything on one core",
                ["", "p50 µs", "p99 µs", "added p50 µs", "added p99 µs"],
                [[n, spread(of(n, "p50")), spread(of(n, "p99")),
                  "" if n == "direct" else spread(added(n, "p50")),
                  "" if n == "direct" else spread(added(n, "p99"))] for n in results])


def case_streams(bench):
    """200 event streams of 200 tokens at a time: CPU time per relayed token."""
    for gap in (0, 10):
        upstream = bench.upstream(tokens=200, gap_ms=gap)
        running = [bench.proxy(k, [upstream], streaming=True) for k in bench.kinds]
        seconds = max(bench.seconds, 4) if gap else bench.seconds
        results = bench.rounds_of(running, seconds, "--connections", 200, "--streams", 1)
        cpu = {n: [r["cpu_seconds"] * 1e6 / r["tokens"] for r in rs] for n, rs in results.items()}
        rate = {n: [r["tokens_per_second"] for r in rs] for n, rs in results.items()}
        bench.data[f"streams_gap_{gap}ms"] = {
            n: {"cpu_us_per_token": cpu[n], "tokens_per_second": rate[n],
                "token_gap_p99_us": [r["token_gap_us"]["p99"] for r in rs]}
            for n, rs in results.items()}
        bench.stop_all()
        notes = [f"segue to {peer}: {ratio(cpu['segue'], cpu[peer])} × the CPU time per token."
                 for peer in results if "segue" in results and peer != "segue"]
        bench.table(f"streams: 200 streams × 200 tokens, {'no gap' if not gap else f'{gap} ms gap'}",
                    ["proxy", "tokens/s", "CPU µs/token", "gap p99 µs", "first token p50 µs"],
                    [[n, spread(rate[n], 0), spread(cpu[n], 2),
                      spread([r["token_gap_us"]["p99"] for r in rs], 0),
                      spread([r["first_token_us"]["p50"] for r in rs], 0)]
                     for n, rs in results.items()], notes)


class Background:
    """The load generator while something else is looked at."""

    def __init__(self, bench, port, *options, check_version=False):
        self.process = subprocess.Popen(
            bench.load_command(port, "--report", 0.5, *options, check_version=check_version),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, bench.other_cores))

    def until(self, condition):
        """Reads interval lines until one fulfils the condition; returns it."""
        for line in self.process.stdout:
            row = json.loads(line)
            if condition(row):
                return row
        raise SystemExit(f"bench: the load ended early: {self.process.stderr.read()}")

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()

    def end(self):
        self.process.terminate()
        lines, errors = self.process.communicate()
        result = json.loads(lines.strip().splitlines()[-1])
        if self.process.returncode:
            raise SystemExit(f"bench: answers were not right: {errors}{str(result)[:3000]}")
        return result


def case_memory(bench):
    """Resident memory: fresh, under load, with idle connections, with open streams."""
    idle, streams = min(10000, proxies.CLIENTS_MAX - 100), 2000
    rows = []
    bench.data["memory"] = {}
    for kind in bench.kinds:
        quick = bench.upstream(bytes=500)
        slow = bench.upstream(tokens=3000, gap_ms=10)
        p = bench.proxy(kind, [quick])
        q = bench.proxy(kind, [slow])
        say(f"memory: {kind.name}")
        fresh = p.program.memory()
        bench.load(p.port, "--connections", 256, "--duration", 2)
        loaded = p.program.memory()
        b = bench.background(p.port, "--connections", 0, "--idle", idle, "--duration", 600)
        b.until(lambda row: row["idle_open"] == idle)
        held = p.program.memory()
        b.end()
        empty = q.program.memory()
        b = bench.background(q.port, "--connections", streams, "--streams", 1, "--duration",
                             600, "--grace", 60)
        b.until(lambda row: row["t"] > 6 and row["in_flight"] == streams)
        open_ = q.program.memory()
        b.stop()
        each = (held[1] - loaded[1]) / idle
        bench.data["memory"][kind.name] = {
            "fresh_rss_pss": fresh, "loaded_rss_pss": loaded, "idle_rss_pss": held,
            "bytes_per_idle_connection": each, "streams_rss_pss": open_,
            "bytes_per_stream": (open_[1] - empty[1]) / streams}
        mib = [f"{m[0] / 2**20:.1f} / {m[1] / 2**20:.1f}" for m in (fresh, loaded, held, open_)]
        rows.append([kind.name, *mib[:3], f"{each / 1024:.1f}", mib[3]])
    bench.table("memory: RSS / PSS in MiB of all processes of the proxy",
                ["proxy", "fresh", "256 connections loaded", f"+ {idle} idle", "KiB per idle connection",
                 f"{streams} open streams"], rows)


def case_switch(bench):
    """segue switch under load: what clients notice, and how long it takes."""
    if proxies.Segue not in bench.kinds:
        return
    rate, every, switches = 10000, 3.0, 8
    upstreams = [bench.upstream("v1", bytes=500), bench.upstream("v2", bytes=500)]
    p = bench.proxy(proxies.Segue, upstreams)
    log = bench.folder / "switches"
    log.write_text("")
    b = bench.background(p.port, "--connections", 64, "--rate", rate, "--report", 1,
                         "--duration", 600, "--switch-log", log, check_version=True)
    b.until(lambda row: row["t"] > 2)
    took, rows, quiet, around = [], [], [], []
    for number in range(switches):
        acknowledged, began, answer = p.switch(f"v{2 - number % 2}")
        with log.open("a") as f:
            f.write(f"{acknowledged} v{2 - number % 2} {began}\n")
        took.append(answer["switch_us"])
        around.append(b.until(lambda row: True))
        quiet += [b.until(lambda row: True) for _ in range(int(every) - 1)]
    for number in range(200):
        acknowledged, began, answer = p.switch(f"v{2 - number % 2}")
        with log.open("a") as f:
            f.write(f"{acknowledged} v{2 - number % 2} {began}\n")
        took.append(answer["switch_us"])
    total = b.end()
    took.sort()
    p99 = took[min(len(took) - 1, int(len(took) * 0.99))]
    calm = statistics.median(r["p99_us"] for r in quiet)
    hit = statistics.median(r["p99_us"] for r in around)
    bench.data["switch"] = {"switch_us": took, "p99_us_without": [r["p99_us"] for r in quiet],
                            "p99_us_with": [r["p99_us"] for r in around], "requests": total["ok"],
                            "failed": total["failed"], "on_old": total["on_old_after_switch"]}
    rows.append([len(took), f"{statistics.median(took):.0f} / {p99:.0f} / {took[-1]:.0f}",
                 f"{calm:.0f}", f"{hit:.0f}", total["ok"], total["failed"],
                 total["on_old_after_switch"]])
    bench.table(f"switch: at {rate} requests/s, open loop",
                ["switches", "switch_us p50 / p99 / max", "p99 µs of seconds without",
                 "p99 µs of seconds with a switch", "requests", "failed", "on the old version after"],
                rows)


def case_routes(bench):
    """Does the number of models matter?"""
    if proxies.Segue not in bench.kinds:
        return
    upstreams = [bench.upstream("v1", bytes=500), bench.upstream("v2", bytes=500)]
    running = [bench.proxy(k, upstreams) for k in (proxies.Segue, proxies.ManyModels)]
    results = bench.rounds_of(running, bench.seconds, "--connections", 64, "--body-bytes", 300)
    took = {p.name: sorted(p.switch(f"v{2 - i % 2}")[2]["switch_us"] for i in range(50))
            for p in running}
    cpu = {n: [r["cpu_seconds"] * 1e6 / r["ok"] for r in rs] for n, rs in results.items()}
    bench.data["routes"] = {n: {"cpu_us_per_request": cpu[n], "switch_us": took[n]} for n in results}
    bench.table("routes: 1 and 1,000 models", ["", "CPU µs/request", "switch_us p50 / max"],
                [[n, spread(cpu[n], 2), f"{statistics.median(took[n]):.0f} / {took[n][-1]:.0f}"]
                 for n in results])


CASES = {"gateway": case_gateway, "latency": case_latency, "streams": case_streams,
         "memory": case_memory, "switch": case_switch, "routes": case_routes}


def machine():
    model = "?"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"cpu": model, "cores": os.cpu_count(), "kernel": platform.release(),
            "system": platform.machine()}


def command_words():
    """What was given to ./dev bench, without the build folder that it adds and the output."""
    words = sys.argv[1:]
    for option in ("--bin", "--output"):
        if option in words:
            at = words.index(option)
            del words[at:at + 2]
    return [w for w in words if w != "--write"]


def versions(bench):
    found = {k.name: k.version() for k in bench.kinds}
    if "segue" in found:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True,
                              text=True)
        found["segue"] = done.stdout.strip() or found["segue"]
    return found


def write_page(page, about, tables):
    """Replaces what stands between the two marks of the page."""
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"bench: {page} has no lines {BEGIN} and {END}")
    m = about["machine"]
    facts = [f"`{about['command'].strip()}` on {about['when'][:10]}: {m['cpu']}, {m['cores']} cores, "
             f"Linux {m['kernel']}; " + ", ".join(f"{n} {v}" for n, v in about["versions"].items())
             + ". Median (least–most) of the rounds."]
    page.write_text(before + begin + "\n" + "\n\n".join(facts + tables) + "\n" + end + after)
    say(f"tables written to {page}")


def main():
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE",
                        help="of: " + ", ".join(CASES) + " (all by default)")
    parser.add_argument("--bin", default="build/release", help="the build folder")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each proxy (default 5)")
    parser.add_argument("--seconds", type=float, default=4, help="of one round (default 4)")
    parser.add_argument("--only", help="proxies, with commas: nginx,haproxy,segue")
    parser.add_argument("--output", default="build/bench.json")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/performance.md")
    args = parser.parse_args()
    unknown = [c for c in args.cases if c not in CASES]
    if unknown:
        parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    args.bin = str(Path(args.bin).resolve())

    with tempfile.TemporaryDirectory(prefix="segue-bench-") as folder:
        bench = Bench(args, Path(folder))
        about = {"command": "./dev bench " + " ".join(command_words()), "machine": machine(),
                 "versions": versions(bench), "workers": bench.workers,
                 "proxy_cores": sorted(bench.proxy_cores), "other_cores": sorted(bench.other_cores),
                 "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
        m = about["machine"]
        print(f"{m['cpu']}, {m['cores']} cores, Linux {m['kernel']}; "
              + ", ".join(f"{n} {v}" for n, v in about["versions"].items()), flush=True)
        for name, reason in proxies.missing(args.bin).items():
            print(f"Without {name}: {reason}.", flush=True)
        for name in args.cases or CASES:
            say(f"== {name}: {CASES[name].__doc__.splitlines()[0]}")
            try:
                CASES[name](bench)
            finally:
                bench.stop_all()
    output = Path(args.output)
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps({**about, "results": bench.data}, indent=1, ensure_ascii=False))
    say(f"everything measured: {output}")
    if args.write:
        write_page(PAGE, about, bench.tables)


if __name__ == "__main__":
    main()
