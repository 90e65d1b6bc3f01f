#!/usr/bin/env python3
"""A fake OpenAI-like engine that can be told to be slow, wrong or dead.

It serves GET /health, GET /v1/models, POST /v1/chat/completions and
POST /v1/completions (plain and streamed), and GET and POST /fake.

Every option below except --listen, --ignore-term and --children is also a
setting that can be changed while it runs, with '_' for '-':

    POST /fake  {"mode": "cut", "after": 3, "times": 1}     ->  the settings
    GET /fake                                               ->  settings and counters

Counters: connections (accepted), open, requests (heads read), completions
(begun), active, finished, gone (the client left first), bodies (the newest 20
completion requests as they came).
"""
import argparse
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

MODES = {
    "ok": "answers well",
    "500": "completions: status 500 with a JSON error (health stays as it is)",
    "503": "completions: status 503 with Retry-After: 7",
    "429": "completions: status 429 with Retry-After: 7 and x-request-id: fake-1",
    "400": "completions: status 400 with a JSON error",
    "empty": "completions: 200, the text is empty",
    "repeat": "completions: 200, the text is '!!!!!!!!'",
    "not-json": "completions: 200, the body is an HTML page that calls itself JSON",
    "half-json": "completions: 200, the JSON ends in the middle, framing is right (plain answers)",
    "hang": "reads the request and never answers",
    "die-before": "the process exits before the first byte of the answer",
    "die-head": "the process exits in the middle of the answer's head",
    "die": "the process exits after --after tokens (plain answers: after half the body)",
    "cut-before": "the connection is closed before the first byte of the answer",
    "cut-head": "the connection is closed in the middle of the answer's head",
    "cut": "the connection is closed (FIN) after --after tokens",
    "reset": "the connection is reset (RST) after --after tokens",
    "stall": "falls silent after --after tokens, keeps the connection",
    "no-done": "a stream ends properly but without [DONE]",
    "garbage": "answers with random-looking bytes",
    "ssh": "answers with an SSH banner",
    "http09": "answers with a bare body, no head",
    "http2": "the status line says HTTP/2.0",
    "101": "answers 101 Switching Protocols",
    "1xx": "sends 103 and 100 before a good answer",
    "many-1xx": "sends 100 Continue without end",
    "endless-head": "sends header fields without end",
    "many-fields": "a good answer with 10000 header fields",
    "slow-head": "a good answer whose head comes at half a second a byte",
    "cl-te": "Content-Length and Transfer-Encoding together",
    "two-cl": "two different Content-Length fields (plain answers)",
    "bad-chunk": "a chunk size that is no number; in a stream after --after tokens",
    "extra": "a good answer with a second answer behind it",
    "short": "Content-Length promises 100 bytes more than come, then FIN (always a plain answer)",
    "close": "a body without length, ended by the end of the connection",
    "json-for-stream": "answers plainly although a stream was asked for",
    "early": "answers 429 before it reads the request's body",
}


def parse(argv):
    modes = "\n".join(f"  {name:16} {text}" for name, text in MODES.items())
    p = argparse.ArgumentParser(
        description=__doc__, epilog="modes:\n" + modes,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    a = p.add_argument
    a("--listen", required=True, metavar="PORT|HOST:PORT|unix:PATH", help="port 0: any, printed to stdout")
    a("--name", default="fake", help="the model's name in /v1/models and in answers; several: a,b")
    a("--mode", default="ok", choices=MODES, metavar="MODE", help="how completions are answered, see below")
    a("--times", type=int, default=-1, help="apply the mode to so many completions, then be ok; -1: for ever")
    a("--after", type=int, default=3, help="tokens before the fault of a mode")
    a("--answer", default="Hello, world!", help="text; {name} and {ask} (the last message) are replaced")
    a("--tokens", type=int, default=0, help="answer with so many words, taken from --answer in a circle")
    a("--delay", type=float, default=0.0, help="seconds before each token")
    a("--first", type=float, default=0.0, help="seconds before the first byte of an answer")
    a("--health", default="200", help="status of /health, or 'hang'")
    a("--loading", type=float, default=0.0, help="/health is 503 for so many seconds from the start")
    a("--bind-after", type=float, default=0.0, help="listen only after so many seconds")
    a("--models", default="200", help="status of /v1/models")
    a("--exit-after", type=float, default=-1.0, help="the process exits after so many seconds; -1: never")
    a("--exit-code", type=int, default=3, help="exit status of a process that dies")
    a("--ignore-term", action="store_true", help="SIGTERM does nothing")
    a("--children", type=int, default=0, help="start so many children that outlive the process")
    a("--chatter", type=int, default=0, help="bytes per second on standard output")
    a("--one-line", action="store_true", help="--chatter without a line feed")
    a("--most", type=int, default=0, help="accept no more than so many connections at a time; 0: any")
    return p.parse_args(argv)


class Cut(Exception):
    """The connection is over, by our will."""


class Gone(Cut):
    """The client has left."""


class Engine:
    def __init__(self, options):
        self.o = options
        self.began = time.monotonic()
        self.lock = threading.Lock()
        self.counters = dict.fromkeys(
            ["connections", "open", "requests", "completions", "active", "finished", "gone"], 0)
        self.bodies = []

    def count(self, name, by=1):
        with self.lock:
            self.counters[name] += by

    def mode(self):
        """The mode of one completion; uses up one of --times."""
        with self.lock:
            if self.o.mode == "ok" or self.o.times == 0:
                return "ok"
            if self.o.times > 0:
                self.o.times -= 1
            return self.o.mode

    def die(self):
        os._exit(self.o.exit_code)

    def healthy(self):
        if time.monotonic() - self.began < self.o.loading:
            return "503"
        return self.o.health


class Connection:
    def __init__(self, engine, sock):
        self.e, self.o, self.s = engine, engine.o, sock
        self.buffer = b""

    def run(self):
        self.e.count("connections")
        self.e.count("open")
        try:
            while self.request():
                pass
        except (Cut, OSError):
            pass
        finally:
            self.e.count("open", -1)
            self.s.close()

    # --- reading ---

    def more(self):
        data = self.s.recv(65536)
        if not data:
            raise Cut
        self.buffer += data

    def request(self):
        while b"\r\n\r\n" not in self.buffer:
            self.more()
        head, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        method, target, _ = lines[0].split(" ", 2)
        fields = {k.strip().lower(): v.strip() for k, v in (l.split(":", 1) for l in lines[1:])}
        self.e.count("requests")
        path = target.split("?")[0]
        completion = path.endswith("/completions")
        mode = self.e.mode() if completion and method == "POST" else "ok"
        if mode == "early":
            self.plain(429, {"error": {"message": "too early", "type": "rate_limit", "code": None}},
                       ["Retry-After: 7", "Connection: close"])
            raise Cut
        body = self.read_body(fields)
        self.keep = fields.get("connection", "").lower() != "close" and lines[0].endswith("1.1")
        if completion and method == "POST":
            self.completion(mode, body, path.endswith("/chat/completions"))
        else:
            self.other(method, path, body)
        return self.keep

    def read_body(self, fields):
        if fields.get("transfer-encoding", "").lower() == "chunked":
            return self.read_chunks()
        need = int(fields.get("content-length", 0))
        while len(self.buffer) < need:
            self.more()
        body, self.buffer = self.buffer[:need], self.buffer[need:]
        return body

    def read_line(self):
        while b"\r\n" not in self.buffer:
            self.more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def read_chunks(self):
        body = b""
        while True:
            size = int(self.read_line().split(b";")[0], 16)
            while len(self.buffer) < size + 2 and size:
                self.more()
            if size == 0:
                while self.read_line():
                    pass
                return body
            body, self.buffer = body + self.buffer[:size], self.buffer[size + 2:]

    # --- writing ---

    def send(self, data):
        if isinstance(data, str):
            data = data.encode()
        self.s.sendall(data)

    def head(self, status, fields, version="HTTP/1.1"):
        reason = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests",
                  500: "Internal Server Error", 503: "Service Unavailable"}.get(status, "Status")
        return f"{version} {status} {reason}\r\n" + "".join(f + "\r\n" for f in fields) + "\r\n"

    def plain(self, status, value, fields=(), content_type="application/json", version="HTTP/1.1"):
        body = value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()
        self.send(self.head(status, [f"Content-Type: {content_type}", f"Content-Length: {len(body)}",
                                     *fields], version).encode() + body)

    def chunk(self, data):
        data = data.encode()
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def gone(self):
        """Has the client left?"""
        self.s.setblocking(False)
        try:
            return self.s.recv(1, socket.MSG_PEEK) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self.s.setblocking(True)

    def wait(self, seconds):
        """Sleeps, but ends when the client leaves."""
        until = time.monotonic() + seconds
        while True:
            if self.gone():
                raise Gone
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.02))

    def reset(self):
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.s.close()
        raise Cut

    # --- answers ---

    def other(self, method, path, body):
        if path == "/fake":
            self.control(method, body)
        elif path == "/health":
            status = self.e.healthy()
            if status == "hang":
                self.wait(1e9)
            self.plain(int(status), {"status": "ok" if status == "200" else "no"})
        elif path == "/v1/models":
            self.plain(int(self.o.models), {"object": "list", "data": [
                {"id": n, "object": "model", "created": 0, "owned_by": "fake"}
                for n in self.o.name.split(",")]})
        else:
            self.plain(404, {"error": {"message": f"no {path}", "type": "not_found", "code": None}})

    def control(self, method, body):
        if method == "POST":
            for key, value in json.loads(body).items():
                if not hasattr(self.o, key) or key == "mode" and value not in MODES:
                    self.plain(400, {"error": f"no setting {key}={value!r}"})
                    return
                setattr(self.o, key, value)
        with self.e.lock:
            self.plain(200, {**vars(self.o), **self.e.counters, "pid": os.getpid(),
                             "bodies": list(self.e.bodies)})

    def words(self, ask):
        text = self.o.answer.replace("{name}", self.o.name).replace("{ask}", ask)
        words = text.split(" ")
        n = self.o.tokens or len(words)
        picked = [words[i % len(words)] for i in range(n)]
        return [w if i == 0 else " " + w for i, w in enumerate(picked)]

    def completion(self, mode, raw, chat):
        self.e.count("completions")
        self.e.count("active")
        with self.e.lock:
            self.e.bodies = (self.e.bodies + [raw.decode("utf-8", "replace")])[-20:]
        try:
            self.answer(mode, raw, chat)
            self.e.count("finished")
        except (Gone, OSError):
            self.e.count("gone")
            raise
        finally:
            self.e.count("active", -1)

    def answer(self, mode, raw, chat):
        try:
            request = json.loads(raw)
        except ValueError:
            self.plain(400, {"error": {"message": "no JSON", "type": "invalid_request_error"}})
            return
        if chat:
            ask = request["messages"][-1]["content"]
        else:
            ask = request.get("prompt", "")
        words = self.words(ask if isinstance(ask, str) else "")
        if mode == "empty":
            words = [""]
        elif mode == "repeat":
            words = ["!"] * 8
        self.wait(self.o.first)
        if self.before(mode):
            return
        if request.get("stream") and mode != "json-for-stream" and mode != "short":
            self.stream(mode, request, words, chat)
        else:
            self.whole(mode, request, words, chat)

    def before(self, mode):
        """Faults that need no answer's text. True: answered."""
        if mode in ("500", "503", "429", "400"):
            extra = ["Retry-After: 7", "x-request-id: fake-1"] if mode in ("503", "429") else []
            self.plain(int(mode), {"error": {"message": f"told to say {mode}", "type": "fake",
                                             "param": None, "code": None}}, extra)
            return True
        if mode == "hang":
            self.wait(1e9)
        if mode == "die-before":
            self.e.die()
        if mode == "cut-before":
            raise Cut
        if mode in ("die-head", "cut-head"):
            self.send("HTTP/1.1 200 OK\r\nContent-Ty")
            time.sleep(0.05)
            if mode == "die-head":
                self.e.die()
            raise Cut
        return self.broken(mode)

    def broken(self, mode):
        """Answers that are not HTTP, or never end."""
        if mode == "garbage":
            self.send(bytes((i * 197 + 13) % 256 for i in range(4096)))
            raise Cut
        if mode == "ssh":
            self.send("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n")
            raise Cut
        if mode == "http09":
            self.send("<html>hello</html>")
            raise Cut
        if mode == "http2":
            self.plain(200, {"choices": []}, version="HTTP/2.0")
            return True
        if mode == "101":
            self.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nxx")
            return True
        if mode == "1xx":
            self.send("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        if mode == "many-1xx":
            while True:
                self.send("HTTP/1.1 100 Continue\r\n\r\n" * 100)
        if mode == "endless-head":
            self.send("HTTP/1.1 200 OK\r\n")
            while True:
                self.send("X-More: and more\r\n" * 100)
        if mode == "not-json":
            self.plain(200, b"<html>Bad gateway</html>")
            return True
        return False

    def shape(self, chat, request, text, finish, stream):
        name = request.get("model", self.o.name)
        if chat:
            choice = {"delta" if stream else "message": {"role": "assistant", "content": text}}
        else:
            choice = {"text": text}
        kind = "chat.completion" if chat else "text_completion"
        return {"id": "fake-1", "object": kind + (".chunk" if stream and chat else ""),
                "created": int(time.time()), "model": name,
                "choices": [{"index": 0, **choice, "finish_reason": finish}]}

    def whole(self, mode, request, words, chat):
        for _ in words:
            if self.o.delay:
                self.wait(self.o.delay)
        value = self.shape(chat, request, "".join(words), "stop", False)
        value["usage"] = {"prompt_tokens": 1, "completion_tokens": len(words),
                          "total_tokens": 1 + len(words)}
        body = json.dumps(value, ensure_ascii=False).encode()
        if mode == "half-json":
            body = body[:len(body) // 2]
        self.framed(mode, body)

    def framed(self, mode, body):
        half = body[:len(body) // 2]
        kind, length = "Content-Type: application/json", f"Content-Length: {len(body)}"
        if mode in ("die", "cut", "reset", "stall"):
            self.send(self.head(200, [kind, length]).encode() + half)
            self.fault(mode)
        elif mode == "short":
            self.send(self.head(200, [kind, f"Content-Length: {len(body) + 100}"]).encode() + body)
            raise Cut
        elif mode == "cl-te":
            self.send(self.head(200, [kind, length, "Transfer-Encoding: chunked"]))
            self.chunk(body.decode())
            self.send("0\r\n\r\n")
        elif mode == "two-cl":
            self.send(self.head(200, [kind, length, "Content-Length: 5"]).encode() + body)
        elif mode == "bad-chunk":
            self.send(self.head(200, [kind, "Transfer-Encoding: chunked"]).encode() + b"zz\r\n" + body)
        elif mode == "close":
            self.send(self.head(200, [kind]).encode() + body)
            raise Cut
        elif mode == "many-fields":
            self.plain(200, body, [f"X-Field-{i}: {i}" for i in range(10000)])
        elif mode == "slow-head":
            for byte in self.head(200, [kind, length]).encode():
                self.send(bytes([byte]))
                self.wait(0.5)
            self.send(body)
        elif mode == "extra":
            self.plain(200, body)
            self.plain(200, b'{"choices":[{"index":0,"message":{"content":"not yours"}}]}')
        else:
            self.plain(200, body)

    def fault(self, mode):
        if mode == "die":
            time.sleep(0.05)
            self.e.die()
        if mode == "cut":
            raise Cut
        if mode == "reset":
            time.sleep(0.05)
            self.reset()
        if mode == "stall":
            self.wait(1e9)
        if mode == "bad-chunk":
            self.send("zz\r\nnot a chunk\r\n")
            raise Cut

    def stream(self, mode, request, words, chat):
        kind = "Content-Type: text/event-stream"
        if mode == "close":
            self.send(self.head(200, [kind]))
            put = self.send
        else:
            fields = [kind, "Transfer-Encoding: chunked"]
            if mode == "cl-te":
                fields.append("Content-Length: 10")
            if mode == "many-fields":
                fields += [f"X-Field-{i}: {i}" for i in range(10000)]
            head = self.head(200, fields)
            if mode == "slow-head":
                for c in head:
                    self.send(c)
                    self.wait(0.5)
            else:
                self.send(head)
            put = self.chunk
        for i, word in enumerate(words):
            if i == self.o.after:
                self.fault(mode)
            if self.o.delay:
                self.wait(self.o.delay)
            elif self.gone():
                raise Gone
            put("data: " + json.dumps(self.shape(chat, request, word, None, True),
                                      ensure_ascii=False) + "\n\n")
        if len(words) <= self.o.after:
            self.fault(mode)
        put("data: " + json.dumps(self.shape(chat, request, "", "stop", True)) + "\n\n")
        if (request.get("stream_options") or {}).get("include_usage"):
            last = self.shape(chat, request, "", None, True)
            last["choices"] = []
            last["usage"] = {"prompt_tokens": 1, "completion_tokens": len(words),
                             "total_tokens": 1 + len(words)}
            put("data: " + json.dumps(last) + "\n\n")
        if mode != "no-done":
            put("data: [DONE]\n\n")
        if mode == "close":
            raise Cut
        self.send("0\r\n\r\n")
        if mode == "extra":
            self.plain(200, b'{"choices":[{"index":0,"message":{"content":"not yours"}}]}')


def listen(where):
    if where.startswith("unix:"):
        path = where[5:]
        if os.path.exists(path):
            os.unlink(path)
        s = socket.socket(socket.AF_UNIX)
        s.bind(path)
    else:
        host, _, port = where.rpartition(":")
        s = socket.socket(socket.AF_INET)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind((host or "127.0.0.1", int(port)))
    s.listen(1024)
    return s


def chatter(o):
    """--chatter, in ten pieces a second; in single writes, so that it can be counted."""
    while True:
        if o.chatter:
            line = b"chatter " * 12 + (b"" if o.one_line else b"\n")
            os.write(1, (line * (o.chatter // 10 // len(line) + 1))[:max(1, o.chatter // 10)])
        time.sleep(0.1)


def leave(o, began):
    while True:
        if 0 <= o.exit_after <= time.monotonic() - began:
            print(f"exit with status {o.exit_code}, as told", file=sys.stderr, flush=True)
            os._exit(o.exit_code)
        time.sleep(0.01)


def main():
    o = parse(sys.argv[1:])
    signal.signal(signal.SIGTERM, signal.SIG_IGN if o.ignore_term else lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(0))
    for _ in range(o.children):
        subprocess.Popen(["/bin/sleep", "3600"])
    engine = Engine(o)
    threading.Thread(target=chatter, args=(o,), daemon=True).start()
    threading.Thread(target=leave, args=(o, engine.began), daemon=True).start()
    time.sleep(o.bind_after)
    server = listen(o.listen)
    if not o.listen.startswith("unix:"):
        print(f"listening on port {server.getsockname()[1]}", flush=True)
    while True:
        while o.most and engine.counters["open"] >= o.most:
            time.sleep(0.01)
        sock, _ = server.accept()
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=Connection(engine, sock).run, daemon=True).start()


if __name__ == "__main__":
    main()
