"""Memory, descriptors and threads of processes, sampled each second."""
import os
import statistics
import threading
import time


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Sample:
    def __init__(self, pid):
        self.at = time.monotonic()
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
            fields = dict(line.split(":", 1) for line in f)
        self.rss_kb = int(fields["VmRSS"].split()[0])
        self.threads = int(fields["Threads"])
        self.fds = descriptors(pid)


class Meter:
    """pids: {"gateway": 1234, ...}"""

    def __init__(self, pids, every=1.0):
        self.pids, self.every = pids, every
        self.samples = {name: [] for name in pids}
        self.first = {name: Sample(pid) for name, pid in pids.items()}  # when nothing goes on
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        while not self.stopping.wait(self.every):
            for name, pid in self.pids.items():
                try:
                    self.samples[name].append(Sample(pid))
                except (OSError, KeyError):
                    return  # it has ended; the test sees that in other ways

    def stop(self):
        self.stopping.set()
        self.thread.join(10)

    def windows(self, name, warm_up, n=4):
        """The samples after the warm-up, in n parts of equal length."""
        samples = self.samples[name]
        begin, end = samples[0].at + warm_up, samples[-1].at
        parts = [[] for _ in range(n)]
        for s in samples:
            if s.at >= begin:
                parts[min(n - 1, int((s.at - begin) / (end - begin + 1e-9) * n))].append(s)
        return parts

    def medians(self, name, what, warm_up, n=4):
        return [statistics.median(getattr(s, what) for s in part)
                for part in self.windows(name, warm_up, n)]

    def high(self, name, what, warm_up, n=4):
        """What nine of ten samples of each window are below. Memory comes and goes with the
        clients; a leak raises this line, a client that happens to be there does not."""
        return [sorted(getattr(s, what) for s in part)[len(part) * 9 // 10]
                for part in self.windows(name, warm_up, n)]
