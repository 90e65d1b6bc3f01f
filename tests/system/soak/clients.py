"""Clients that behave well, in all the ways that HTTP knows. Each answer must be whole and right."""
import json
import socket
import time

from harness import Wire, chat, head, post

from .ledger import Record

TIMEOUT = 90.0
LONG_EVENTS = 2000  # of the model `long`, each with so much text:
LONG_PIECE = 4096
PROMPT = "将以下文本翻译为英语，注意只需要输出翻译后的结果，不要额外解释：\n\n"
SENTENCES = ["你好，世界。", "我喜欢喝茶。", "今天天气很好。", "他在看书。"]


class SlowWire(Wire):
    """Reads 1 KiB a second for a while, then as fast as it can.

    What it takes can be seen from outside only in steps of half its kernel's buffer.
    """

    def __init__(self, worker, seconds):
        self.worker, self.until = worker, time.monotonic() + seconds
        self.s = socket.socket()
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.s.settimeout(TIMEOUT)
        self.s.connect(worker.address)
        self.buffer = b""

    def more(self):
        if time.monotonic() < self.until and not self.worker.stopping.is_set():
            self.worker.stopping.wait(0.5)
            data = self.s.recv(512)
            self.buffer += data
            return data
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        return super().more()


class Line:
    """A connection that is kept while it can be; one for each worker."""

    def __init__(self, worker, wire=None):
        self.worker = worker
        self.opened_ns = time.monotonic_ns()
        self.wire = wire or Wire(worker.address, TIMEOUT)

    @classmethod
    def of(cls, worker):
        line = getattr(worker, "line", None)
        if line is None or line.worker.random.random() < 0.05:  # now and then a new one
            if line is not None:
                line.close()
            try:
                worker.line = line = cls(worker)
            except OSError as e:
                worker.ledger.complain(f"{worker.name}: cannot connect: {e!r}")
                worker.pause(0.2)
        return line

    def close(self):
        self.wire.close()
        if getattr(self.worker, "line", None) is self:
            self.worker.line = None

    def record(self, model):
        return Record(self.worker.name, model, self.opened_ns)

    def take(self, r, question, stream, method="POST"):
        """Reads one answer and judges what can be judged by itself."""
        try:
            a = self.wire.answer(method)
        except (OSError, EOFError) as e:
            r.wrong = f"no answer: {e!r}"
        except (AssertionError, ValueError) as e:
            r.wrong = f"not HTTP: {e!r}"
        else:
            r.tag = a.get("x-segue-version")
            try:
                r.wrong = wrong(a, r, question, stream)
            except (ValueError, KeyError, IndexError, TypeError) as e:
                r.wrong = f"not an answer: {e!r}: {a!r}"
        self.worker.ledger.took(r)
        if r.wrong or a.get("connection") == "close" or a.framing == "close":
            self.close()
            return False
        return True


def wrong(a, r, question, stream):
    """Why the answer is not right, or ""."""
    if a.status != 200:
        return f"status {a.status}: {a.body[:300]}"
    if not a.complete:
        r.cut = True
        if stream and not any('"error"' in e for e in a.events()[-1:]):
            r.cut = False
            return f"cut without an error frame after {len(a.body)} bytes: {a.body[-100:]!r}"
        return f"cut after {len(a.body)} bytes"
    if question is None:
        return ""
    if not stream:
        value = a.json()
        choice = value["choices"][0]
        return judge_text(r, value["model"], choice["message"]["content"], question,
                          choice["finish_reason"])
    events = a.events()
    if events[-1] != "[DONE]":
        return f"a stream without its [DONE] that looks whole: {events[-1]}"
    values = [json.loads(e) for e in events[:-1]]
    if any("error" in v for v in values):
        return f"an error in a stream that looks whole: {events[-2]}"
    if len({v["model"] for v in values}) != 1:
        return "several versions in one stream"
    text = "".join(v["choices"][0]["delta"].get("content") or "" for v in values)
    return judge_text(r, values[0]["model"], text, question,
                      values[-1]["choices"][0]["finish_reason"])


def judge_text(r, model, text, question, finish):
    if r.tag is None:
        r.tag = model  # a stream that was held for long: its head came before its version
    if finish not in ("stop", "length"):
        return f"finish_reason {finish}"
    if r.model == "long":
        want = LONG_EVENTS * LONG_PIECE
        return "" if len(text) == want else f"{len(text)} bytes of text instead of {want}"
    if model != r.tag:
        return f"the head says {r.tag}, the body {model}"
    if r.model == "mix" and text != f"{r.tag} says {question}":
        return f"the text is {text!r} instead of {r.tag} says {question!r}"
    return "" if text else "no text"


def one(w, model, question, stream, data=None, send=None, pinned=None):
    """One request on the worker's line."""
    line = Line.of(w)
    if line is None:
        return
    body = chat(question, pinned or model, stream, max_tokens=32)
    r = line.record(model)
    r.pinned = pinned
    try:
        if send:
            send(line.wire, body)
        else:
            line.wire.send(data or post(body))
    except OSError as e:
        r.wrong = f"not sent: {e!r}"
        w.ledger.took(r)
        line.close()
        return
    line.take(r, question, stream)


# --- the kinds --------------------------------------------------------------------------------

def plain(w):
    one(w, "mix", w.words(w.random.randrange(1, 12)), False)


def stream(w):
    one(w, "mix", w.words(w.random.randrange(1, 30)), True)


def pinned(w):
    one(w, "mix", w.words(4), w.random.random() < 0.5, pinned=f"mix@v{w.random.randrange(1, 3)}")


def tiny(w):
    """The builtin engine."""
    one(w, "tiny", PROMPT + w.random.choice(SENTENCES), w.random.random() < 0.7)


def chunked(w):
    """A request in chunks of odd sizes, with an extension and a trailer."""
    def send(wire, body):
        data = json.dumps(body).encode()
        wire.send(head("POST", "/v1/chat/completions", "Content-Type: application/json",
                       "Transfer-Encoding: chunked"))
        while data:
            n = w.random.randrange(1, 64)
            wire.send(b"%x;a=b\r\n%s\r\n" % (len(data[:n]), data[:n]))
            data = data[n:]
        wire.send(b"0\r\nX-Sum: 1\r\n\r\n")
    one(w, "mix", w.words(6), w.random.random() < 0.5, send=send)


def expect(w):
    """A large body after `100 Continue`."""
    def send(wire, body):
        data = json.dumps({**body, "pad": "x" * w.random.randrange(1000, 400000)}).encode()
        wire.send(head("POST", "/v1/chat/completions", "Expect: 100-continue",
                       f"Content-Length: {len(data)}"))
        while b"\r\n\r\n" not in wire.buffer:
            if not wire.more():
                raise ConnectionError("closed instead of 100 Continue")
        top, wire.buffer = wire.buffer.split(b"\r\n\r\n", 1)
        if not top.startswith(b"HTTP/1.1 100 "):
            raise ConnectionError(f"{top[:60]!r} instead of 100 Continue")
        wire.send(data)
    one(w, "mix", w.words(6), w.random.random() < 0.5, send=send)


def pipeline(w):
    """Several requests in one write; the answers come in order."""
    line = Line.of(w)
    if line is None:
        return
    asked = [(w.words(w.random.randrange(1, 8)), w.random.random() < 0.5) for _ in range(5)]
    records = [line.record("mix") for _ in asked]
    try:
        line.wire.send(b"".join(post(chat(q, "mix", s)) for q, s in asked))
    except OSError as e:
        records[0].wrong = f"not sent: {e!r}"
        w.ledger.took(records[0])
        line.close()
        return
    for r, (question, streamed) in zip(records, asked):
        if not line.take(r, question, streamed):
            return


def old(w):
    """HTTP/1.0: the end of the connection is the end of the answer."""
    line = Line(w)
    question, streamed = w.words(5), w.random.random() < 0.5
    r = line.record("mix")
    line.wire.send(post(chat(question, "mix", streamed), version="HTTP/1.0"))
    line.take(r, question, streamed)
    line.close()


def own(w):
    """What the gateway answers by itself."""
    method, target = w.random.choice(["GET", "HEAD"]), w.random.choice(["/v1/models", "/health"])
    line = Line.of(w)
    if line is None:
        return
    r = line.record(None)
    try:
        line.wire.send(head(method, target))
    except OSError as e:
        r.wrong = f"not sent: {e!r}"
        w.ledger.took(r)
        line.close()
        return
    line.take(r, None, False, method)


def drip(w):
    """A good request in small pieces with pauses, well within the limits of time."""
    def send(wire, body):
        data = post(body)
        pieces = 12
        for i in range(pieces):
            wire.send(data[len(data) * i // pieces:len(data) * (i + 1) // pieces])
            w.stopping.wait(0.15)
    one(w, "mix", w.words(8), w.random.random() < 0.5, send=send)


def slow_reader(w):
    """Takes an answer of megabytes at 1 KiB a second, longer than timeouts.send, then the rest."""
    line = Line(w, SlowWire(w, w.crew.slow_seconds))
    r = line.record("long")
    r.slow = True
    line.wire.send(post(chat("x", "long", True)))
    line.take(r, "x", True)
    line.close()


# name: (function, threads, mean pause in seconds)
CLIENTS = {
    "plain": (plain, 4, 0.2),
    "stream": (stream, 6, 0.2),
    "pinned": (pinned, 1, 0.3),
    "tiny": (tiny, 2, 0.3),
    "chunked": (chunked, 1, 0.3),
    "expect": (expect, 1, 0.5),
    "pipeline": (pipeline, 1, 0.5),
    "old": (old, 1, 0.3),
    "own": (own, 1, 0.2),
    "drip": (drip, 2, 0.5),
    "slow reader": (slow_reader, 2, 1.0),
}
