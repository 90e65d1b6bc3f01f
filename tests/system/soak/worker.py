"""Threads that do one thing again and again until the crew is sent home."""
import random
import threading
import traceback


class Stop(Exception):
    """The crew goes home."""


class Worker:
    """What a client or an abuser is given: where to go, and the time."""

    def __init__(self, crew, name, seed):
        self.crew, self.name = crew, name
        self.address, self.ledger, self.slow = crew.address, crew.ledger, crew.slow
        self.random = random.Random(seed)
        self.stopping = crew.stopping

    def pause(self, seconds):
        if self.stopping.wait(seconds):
            raise Stop

    def words(self, n):
        return " ".join(self.random.choice(WORDS) for _ in range(n))

    def bytes(self, n):
        return self.random.randbytes(n)


WORDS = "river stone 山 light über wind keel amber 水 north \"quoted\" tab\\t 🙂 slow".split(" ")


class Crew:
    """crew.add("plain", function, 4): four threads that call function(worker) again and again."""

    def __init__(self, address, ledger, slow=1):
        self.address, self.ledger, self.slow = address, ledger, slow
        self.stopping = threading.Event()
        self.threads = []

    def add(self, name, function, n=1, every=0.0):
        """every: mean pause in seconds between two calls."""
        for i in range(n):
            worker = Worker(self, name, f"{name} {i}")
            t = threading.Thread(target=self._run, args=(worker, function, every), name=name,
                                 daemon=True)
            self.threads.append(t)
            t.start()

    def _run(self, worker, function, every):
        try:
            while not self.stopping.is_set():
                function(worker)
                worker.pause(every * 2 * worker.random.random())
        except Stop:
            pass
        except Exception:
            self.ledger.complain(f"{worker.name} is broken:\n{traceback.format_exc()}")

    def home(self, seconds=90):
        """Lets everybody end what is under way."""
        self.stopping.set()
        for t in self.threads:
            t.join(seconds)
            if t.is_alive():
                self.ledger.complain(f"{t.name} does not end within {seconds} s")
