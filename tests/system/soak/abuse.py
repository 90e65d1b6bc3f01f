"""Clients that do not behave. They are answered with a 4xx in JSON, or cut off in time; nobody
else notices them, and nothing of them stays."""
import contextlib
import socket
import ssl
import time

from harness import Wire, chat, head, post
from test_gateway_refusals import MALFORMED, SENSELESS

from .clients import TIMEOUT

HEAD_S, BODY_S, IDLE_S, SEND_S = 5, 8, 15, 8  # the timeouts of the configuration
BODY_BYTES = 1 << 20  # limits.body_bytes; what MALFORMED counts on


@contextlib.contextmanager
def wire(w):
    """A connection; that it may end at any time is no surprise here."""
    with contextlib.suppress(OSError, EOFError):
        c = Wire(w.address, TIMEOUT)
        try:
            yield c
        finally:
            c.close()


def refused(w, c, name, statuses):
    """An error of ours with one of these statuses, then the end."""
    try:
        a = c.answer()
    except EOFError:
        w.ledger.count("abuse: closed without a word")
        return None
    try:
        if a.status not in statuses:
            w.ledger.complain(f"{w.name}, {name}: {a!r}, expected {statuses}")
        elif not a.complete or not a.error["message"]:
            w.ledger.complain(f"{w.name}, {name}: not a whole error: {a!r}")
        else:
            w.ledger.count(f"abuse: {a.status}")
    except (AssertionError, ValueError, KeyError) as e:
        w.ledger.complain(f"{w.name}, {name}: {e!r}: {a!r}")
    return a


def malformed(w):
    """A good request behind a bad one must not be answered: the connection is at its end."""
    name, (data, status) = w.random.choice(list(MALFORMED.items()))
    with wire(w) as c:
        try:
            c.send(data + post(chat("smuggled", "mix")))
        except ConnectionError:
            return  # refused before all of it was sent
        if refused(w, c, name, [status]) and not c.ended(20 * w.slow):
            w.ledger.complain(f"{w.name}, {name}: the connection goes on: {c.buffer[:100]}")


def senseless(w):
    name, (data, status, code, _) = w.random.choice(list(SENSELESS.items()))
    with wire(w) as c:
        for _ in range(w.random.randrange(1, 4)):
            a = refused(w, c.send(data), name, [status])
            if a and a.complete and a.error["code"] != code:
                w.ledger.complain(f"{name}: {a.error}")


def garbage(w):
    with wire(w) as c:
        c.send(w.bytes(w.random.randrange(1, 60000)))
        if w.random.random() < 0.5:
            c.finish()
            c.s.settimeout(2 * HEAD_S * w.slow)
            while c.more():
                pass
            if c.buffer and not c.buffer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5")):
                w.ledger.complain(f"garbage is answered {c.buffer[:100]}")


def tls(w):
    """A TLS client at the plain port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with contextlib.suppress(OSError), socket.create_connection(w.address, TIMEOUT) as s:
        try:
            context.wrap_socket(s, server_hostname="test").close()
            w.ledger.complain("the plain port speaks TLS")
        except ssl.SSLError:
            w.ledger.count("abuse: TLS refused")


def huge_head(w):
    with wire(w) as c:
        try:
            c.send(b"GET /health HTTP/1.1\r\nHost: x\r\n")
            for i in range(w.random.choice([40, 400, 4000])):
                c.send(b"X-%d: %s\r\n" % (i, b"a" * 500))
        except ConnectionError:
            return
        refused(w, c, "huge head", [431])


def silent(w):
    """Half a head, half a body, or nothing at all, and then silence: ended in time."""
    what, data, limit, statuses = w.random.choice([
        ("half a head", b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nCont", HEAD_S, [408]),
        ("half a body", post(chat("x" * 1000, "mix"))[:-w.random.randrange(1, 900)], BODY_S, [408]),
        ("half a chunk", head("POST", "/v1/completions", "Transfer-Encoding: chunked")
         + b"5\r\nab", BODY_S, [408]),
        ("nothing", b"", IDLE_S, None),
        ("nothing more", head("GET", "/health"), IDLE_S, None)])
    with wire(w) as c:
        began = time.monotonic()
        c.send(data)
        if statuses:
            refused(w, c, what, statuses)
        else:
            while c.more():
                pass
        took = time.monotonic() - began
        if w.stopping.is_set() or w.ledger.gateway_died_since(began * 1e9):
            return
        if not limit - 1 <= took <= limit + 5 * w.slow:
            w.ledger.complain(f"silent after {what}: ended after {took:.1f} s, not {limit}")


def trickle(w):
    """A byte now and then: the limits are for the whole head and the whole body."""
    body = w.random.random() < 0.5
    data = post(chat("x" * 100, "mix")) if body else b"GET /health HTTP/1.1\r\nX: " + b"a" * 100
    start = data.index(b"\r\n\r\n") + 4 if body else 20
    with wire(w) as c:
        began = time.monotonic()
        c.send(data[:start])
        c.s.settimeout(0.4)
        for i in range(start, len(data)):
            c.send(data[i:i + 1])
            try:
                c.more()
                break
            except TimeoutError:
                w.pause(0)
        c.s.settimeout(TIMEOUT)
        refused(w, c, "trickle", [408])
        took = time.monotonic() - began
        if took > (BODY_S if body else HEAD_S) + 5 * w.slow:
            w.ledger.complain(f"a trickling client was borne for {took:.1f} s")


def leave(w):
    """Closes or resets at an odd moment of a request or its answer."""
    model = w.random.choice(["mix", "mix", "mix", "tiny", "long"])
    data = post(chat(w.words(10), model, w.random.random() < 0.7, max_tokens=32))
    moment = w.random.random()
    with wire(w) as c:
        if moment < 0.1:
            pass  # a connection without a byte
        elif moment < 0.35:
            c.send(data[:w.random.randrange(1, len(data))])
        elif moment < 0.5:
            c.send(data)
        elif moment < 0.6:
            c.send(data).finish()
            c.answer()
        else:
            c.send(data)
            for _ in range(w.random.randrange(1, 6)):
                if not c.more():
                    break
        if w.random.random() < 0.3:
            w.pause(w.random.random() * 0.1)
        if w.random.random() < 0.5:
            c.reset()


def flood(w):
    """Very many requests in one write; sometimes the answers are wanted."""
    n = w.random.choice([50, 300, 1000])
    with wire(w) as c:
        if w.random.random() < 0.3:
            with contextlib.suppress(ConnectionError):
                c.send(post(chat("x", "mix")) * n)
            if w.random.random() < 0.5:
                c.reset()
            return
        c.send(head("GET", "/health") * n)
        if w.random.random() < 0.5:
            return
        for i in range(n):
            if c.answer("GET").status != 200:
                w.ledger.complain(f"flood: answer {i} of {n} is not 200")
                return


def crowd(w):
    """Many connections at once that want nothing, or leave at once."""
    wires = []
    with contextlib.suppress(OSError):
        for _ in range(w.random.choice([20, 60, 120])):
            wires.append(Wire(w.address, TIMEOUT))
    if w.random.random() < 0.3:
        w.stopping.wait(2)
    for c in wires:
        c.reset() if w.random.random() < 0.5 else c.close()


def not_reading(w):
    """Asks for megabytes and does not take them: cut off after timeouts.send, and visibly."""
    with wire(w) as c:
        c.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        c.send(post(chat("x", "long", True)))
        w.pause(2 * SEND_S + 4 * w.slow)  # what trickles in at first counts as taken
        try:
            while c.more():
                if len(c.buffer) > 4 << 20:
                    w.ledger.complain("an answer that nobody took for long goes on")
                    return
        except ConnectionResetError:
            w.ledger.count("abuse: cut because it did not read")


def upload(w):
    """A body above the limit, announced or not."""
    with wire(w) as c:
        try:
            if w.random.random() < 0.5:
                c.send(head("POST", "/v1/chat/completions", f"Content-Length: {BODY_BYTES + 1}"))
                c.send(b"x" * w.random.randrange(1, BODY_BYTES))
            else:
                c.send(head("POST", "/v1/chat/completions", "Transfer-Encoding: chunked"))
                for _ in range(BODY_BYTES // 0x4000 + 2):
                    c.send(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        except ConnectionError:
            return
        refused(w, c, "upload", [413])


# name: (function, threads, mean pause in seconds)
ABUSES = {
    "malformed": (malformed, 1, 0.1),
    "senseless": (senseless, 1, 0.2),
    "garbage": (garbage, 1, 0.5),
    "tls": (tls, 1, 1.0),
    "huge head": (huge_head, 1, 0.5),
    "silent": (silent, 10, 0.5),
    "trickle": (trickle, 3, 0.5),
    "leave": (leave, 4, 0.2),
    "flood": (flood, 1, 1.5),
    "crowd": (crowd, 1, 3.0),
    "not reading": (not_reading, 2, 1.0),
    "upload": (upload, 1, 1.0),
}
