"""A scripted engine of bytes: threads, one for each connection.

    def script(request, conn):
        conn.send(b"HTTP/1.1 200 OK\r\n...")

The script is called for each request that has come whole. What it leaves unread or unsaid is
the test's own doing. Without a script it answers like an OpenAI server that echoes.
"""
import json
import socket
import struct
import threading
import time


class Request:
    def __init__(self, conn, number, line, fields, body):
        self.conn, self.number, self.line, self.fields, self.body = conn, number, line, fields, body
        self.method, self.target, self.version = line.split(" ", 2)
        self.at_ns = time.monotonic_ns()

    def get(self, name, default=None):
        values = self.all(name)
        assert len(values) < 2, f"{name} came {len(values)} times: {values}"
        return values[0] if values else default

    def all(self, name):
        return [v for k, v in self.fields if k.lower() == name.lower()]

    def json(self):
        return json.loads(self.body)

    def text(self):
        return self.json()["messages"][-1]["content"]


def answer(body=b"{}", status=200, *fields, content_type="application/json", reason="OK"):
    """A whole answer with its length."""
    if not isinstance(body, bytes):
        body = json.dumps(body, ensure_ascii=False).encode()
    lines = [f"HTTP/1.1 {status} {reason}", f"Content-Type: {content_type}",
             f"Content-Length: {len(body)}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def chunked(*pieces, last=True):
    data = b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in pieces)
    return data + (b"0\r\n\r\n" if last else b"")


def event_stream(*fields, framing="Transfer-Encoding: chunked"):
    lines = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream", *([framing] if framing else []),
             *fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def echo(request, conn):
    """The default script: says what it was asked, plain or as three events."""
    value = request.json()
    text = request.text() if "messages" in value else value.get("prompt", "")
    name = value.get("model")
    if not value.get("stream"):
        conn.send(answer({"model": name, "choices": [{"index": 0, "message": {
            "role": "assistant", "content": text}, "finish_reason": "stop"}]}))
        return
    out = event_stream()
    for part in (text, "", None):
        data = "[DONE]" if part is None else json.dumps(
            {"model": name, "choices": [{"index": 0, "delta": {"content": part}}]})
        out += chunked(f"data: {data}\n\n".encode(), last=False)
    conn.send(out + b"0\r\n\r\n")


class Conn:
    def __init__(self, upstream, sock, number):
        self.upstream, self.s, self.number = upstream, sock, number
        self.buffer = b""
        self.ended = threading.Event()  # the peer has closed, or we have
        self.ended_ns = 0

    def send(self, data):
        self.s.sendall(data.encode() if isinstance(data, str) else data)

    def drip(self, data, size=1, pause=0.002):
        for i in range(0, len(data), size):
            self.s.sendall(data[i:i + size])
            time.sleep(pause)

    def close(self):
        try:
            self.s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.s.close()

    def reset(self):
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.s.close()

    def wait_end(self, seconds=30.0):
        """Waits until the gateway has closed this connection; what it sends is dropped."""
        self.s.settimeout(seconds)
        try:
            while self.s.recv(65536):
                pass
        except TimeoutError:
            raise AssertionError(f"the gateway has not closed the connection in {seconds} s")
        except OSError:
            pass
        self._end()

    def _end(self):
        if not self.ended.is_set():
            self.ended_ns = time.monotonic_ns()
            self.ended.set()

    def _more(self):
        data = self.s.recv(65536)
        if not data:
            raise EOFError
        self.buffer += data

    def _request(self, number):
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        top, self.buffer = self.buffer.split(b"\r\n\r\n", 1)
        lines = top.decode("latin-1").split("\r\n")
        fields = [tuple(p.strip() for p in line.split(":", 1)) for line in lines[1:]]
        length = next((v for k, v in fields if k.lower() == "content-length"), "0")
        r = Request(self, number, lines[0], fields, b"")
        if self.upstream.on_head:
            self.upstream.on_head(r, self)
        while len(self.buffer) < int(length):
            self._more()
        r.body, self.buffer = self.buffer[:int(length)], self.buffer[int(length):]
        return r

    def run(self):
        number = 0
        try:
            while True:
                request = self._request(number)
                number += 1
                with self.upstream.lock:
                    self.upstream.requests.append(request)
                (self.upstream.script or echo)(request, self)
        except (OSError, EOFError):
            pass
        except Exception as e:  # a mistake in a script must be seen
            self.upstream.box.complain(f"{self.upstream.name}: {e!r}")
        finally:
            self._end()
            try:
                self.s.close()
            except OSError:
                pass


class Upstream:
    def __init__(self, box, script=None, unix=False, name="upstream", on_head=None, listen=True):
        self.box, self.script, self.name, self.on_head = box, script, name, on_head
        self.lock = threading.Lock()
        self.requests, self.conns = [], []
        self.closed = False
        if unix:
            path = str(box.folder / f"{name}.sock")
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(path)
            self.address = f"unix:{path}"
        else:
            self.listener = socket.socket()
            self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.listener.bind(("127.0.0.1", 0))
            self.port = self.listener.getsockname()[1]
            self.address = f"127.0.0.1:{self.port}"
        self.thread = threading.Thread(target=self._accept, daemon=True)
        if listen:
            self.listen()
        box.own(self)

    def listen(self):
        self.listener.listen(1024)
        self.thread.start()

    def _accept(self):
        while not self.closed:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            if sock.family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                conn = Conn(self, sock, len(self.conns))
                self.conns.append(conn)
            threading.Thread(target=conn.run, daemon=True).start()

    def stop(self):
        """As if the engine's process had ended: refuses, and all connections close."""
        self.closed = True
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        for c in list(self.conns):
            c.close()

    def close(self):
        self.stop()

    @property
    def open(self):
        return [c for c in self.conns if not c.ended.is_set()]

    def models(self):
        """The `model` of each request, in order of arrival."""
        return [r.json().get("model") for r in self.requests]
