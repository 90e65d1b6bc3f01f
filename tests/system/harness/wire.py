"""An HTTP/1.1 client of bytes: it sends what it is told and reads an answer strictly."""
import json
import re
import socket
import struct
import time

TIMEOUT = 30.0


class Answer:
    """One answer as it came over the wire."""

    def __init__(self):
        self.version = self.reason = ""
        self.status = 0
        self.fields = []      # (name as it came, value)
        self.interim = []     # statuses of 1xx answers before it
        self.framing = ""     # "none", "length", "chunked", "close"
        self.body = b""
        self.chunks = []      # sizes, if chunked
        self.complete = False  # its framing says that it is whole
        self.reset = False    # the connection was reset within it
        self.seconds = 0.0

    def get(self, name, default=None):
        values = [v for k, v in self.fields if k.lower() == name.lower()]
        assert len(values) < 2, f"the field {name} came {len(values)} times: {values}"
        return values[0] if values else default

    def json(self):
        return json.loads(self.body)

    def events(self):
        """The data of the SSE events; a rest without an empty line at its end is an event too."""
        text = self.body.decode()
        return [line[6:] for line in re.split(r"\r?\n", text) if line.startswith("data: ")]

    @property
    def error(self):
        """OpenAI's error object; its shape is checked."""
        assert self.get("content-type") == "application/json", self.fields
        error = self.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}, error
        assert isinstance(error["message"], str) and error["message"]
        assert isinstance(error["type"], str) and isinstance(error["code"], str)
        return error

    def __repr__(self):
        return (f"<Answer {self.status} {self.framing} {'whole' if self.complete else 'CUT'} "
                f"{self.body[:200]!r}>")


class Wire:
    def __init__(self, address, timeout=TIMEOUT):
        """address: (host, port), or a unix path."""
        if isinstance(address, str):
            self.s = socket.socket(socket.AF_UNIX)
        else:
            self.s = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        self.s.settimeout(timeout)
        self.s.connect(address)
        if not isinstance(address, str):
            self.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        self.s.sendall(data.encode() if isinstance(data, str) else data)
        return self

    def drip(self, data, size=1, pause=0.0):
        """Sends in pieces; each is a segment of its own."""
        for i in range(0, len(data), size):
            self.s.sendall(data[i:i + size])
            if pause:
                time.sleep(pause)
        return self

    def close(self):
        self.s.close()

    def reset(self):
        self.s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.s.close()

    def finish(self):
        """Shuts our side."""
        self.s.shutdown(socket.SHUT_WR)

    def more(self):
        """Some bytes; b"" at the end."""
        data = self.s.recv(65536)
        self.buffer += data
        return data

    def ended(self, seconds=10.0):
        """Whether the peer ends the connection without another byte."""
        self.s.settimeout(seconds)
        try:
            return self.buffer == b"" and self.s.recv(1) == b""
        except ConnectionError:
            return True
        except TimeoutError:
            return False
        finally:
            self.s.settimeout(TIMEOUT)

    def silent(self, seconds=0.2):
        """Whether nothing comes for a while (to show an absence; use sparingly)."""
        self.s.settimeout(seconds)
        try:
            self.more()
            return False
        except TimeoutError:
            return True
        finally:
            self.s.settimeout(TIMEOUT)

    # --- answers ---

    def _line(self):
        while b"\r\n" not in self.buffer:
            if not self.more():
                raise EOFError
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        assert b"\n" not in line and b"\r" not in line, line
        return line

    def _head(self, a):
        version, status, reason = self._line().decode("latin-1").split(" ", 2)
        assert version == "HTTP/1.1", version
        a.version, a.status, a.reason, a.fields = version, int(status), reason, []
        while True:
            line = self._line().decode("latin-1")
            if not line:
                return
            name, value = line.split(":", 1)
            assert re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name), line
            a.fields.append((name, value.strip()))

    def _take(self, a, n):
        """n bytes of the body; what is there before an early end is kept."""
        while n:
            if not self.buffer and not self.more():
                raise EOFError
            piece, self.buffer = self.buffer[:n], self.buffer[n:]
            a.body += piece
            n -= len(piece)

    def head(self):
        """Reads an answer's head; body() follows."""
        a = Answer()
        while True:
            self._head(a)
            if a.status >= 200:
                return a
            a.interim.append(a.status)

    def body(self, a, method="POST"):
        a.body = bytearray(a.body)  # grows in place
        try:
            return self._body(a, method)
        finally:
            a.body = bytes(a.body)

    def _body(self, a, method):
        coding, length = a.get("transfer-encoding"), a.get("content-length")
        assert not (coding and length), "an answer with two framings"
        try:
            if method == "HEAD" or a.status in (204, 304):
                a.framing = "none"
            elif coding:
                assert coding == "chunked"
                a.framing = "chunked"
                self._chunks(a)
            elif length is not None:
                a.framing = "length"
                self._take(a, int(length))
            else:
                a.framing = "close"
                while True:
                    a.body += self.buffer
                    self.buffer = b""
                    if not self.more():
                        break
            a.complete = True
        except EOFError:
            a.complete = False
        except ConnectionResetError:
            a.complete, a.reset = False, True
            a.body += self.buffer
            self.buffer = b""
        return a

    def _chunks(self, a):
        while True:
            line = self._line()
            assert re.fullmatch(rb"[0-9a-f]+", line), line
            size = int(line, 16)
            a.chunks.append(size)
            if size == 0:
                assert self._line() == b"", "a trailer"
                return
            self._take(a, size)
            end = Answer()
            end.body = bytearray()
            self._take(end, 2)
            assert end.body == b"\r\n", end.body

    def answer(self, method="POST"):
        """The next answer, whole or cut."""
        began = time.monotonic()
        a = self.body(self.head(), method)
        a.seconds = time.monotonic() - began
        return a

    def ask(self, data, method="POST"):
        return self.send(data).answer(method)


def head(method, target, *fields, version="HTTP/1.1", host="test"):
    lines = [f"{method} {target} {version}"]
    if host is not None:
        lines.append(f"Host: {host}")
    return ("\r\n".join([*lines, *fields]) + "\r\n\r\n").encode("latin-1")


def post(body, *fields, target="/v1/chat/completions", version="HTTP/1.1", host="test"):
    """A whole POST request; body: bytes, text or a value for JSON."""
    if not isinstance(body, (bytes, str)):
        body = json.dumps(body, ensure_ascii=False)
    if isinstance(body, str):
        body = body.encode()
    return head("POST", target, "Content-Type: application/json", f"Content-Length: {len(body)}",
                *fields, version=version, host=host) + body


def chat(text="hello", model="m", stream=False, **more):
    """A chat request's body."""
    value = {"model": model, "messages": [{"role": "user", "content": text}], **more}
    if stream:
        value["stream"] = True
    return value
