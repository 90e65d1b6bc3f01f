#!/usr/bin/env python3
"""Writes the seed corpora and dictionaries of the fuzz targets.

Each seed is one file, corpus/TARGET/NAME.  Inputs that once broke something are
kept beside them by hand and are named crash-*; they are never written here.
"""
import pathlib

here = pathlib.Path(__file__).parent
H = b"Host: h\r\n"
GET = b"GET / HTTP/1.1\r\n" + H


def get(fields: bytes) -> bytes:
    return GET + fields + b"\r\n"


def ok(fields: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n"


REQUEST = {
    "plain": get(b""),
    "openai": b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n"
    b"Accept: application/json\r\nUser-Agent: OpenAI/Python 1.0\r\nAuthorization: Bearer x\r\n"
    b"Content-Type: application/json\r\nContent-Length: 297\r\nConnection: keep-alive\r\n\r\n{",
    "chunked": get(b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n"),
    "length": get(b"Content-Length: 18446744073709551615\r\n"),
    "both": get(b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
    "connection": get(b"Connection: close, x-a ,, keep-alive\r\nX-A: 1\r\nKeep-Alive: 5\r\n"),
    "absolute": b"GET http://[::1]:80/a?b HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    "absolute_query": b"GET http://h?b HTTP/1.0\r\n\r\n",
    "asterisk": b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n",
    "old": b"HEAD /%20a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "two": get(b"") + get(b""),
    "empty_line": b"\r\n" + get(b""),
    "fold": get(b"A: b\r\n c\r\n"),
    "bare_lf": b"GET / HTTP/1.1\n" + H + b"\n",
    "bare_cr": get(b"A: b\rc\r\n"),
    "bytes": get(b"A: \t\x80\xff x\t \r\n"),
    "names": get(b"".join(n + b": x\r\n" for n in (
        b"te", b"trailer", b"upgrade", b"date", b"server", b"retry-after", b"origin",
        b"x-request-id", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host",
        b"x-real-ip", b"forwarded", b"x-segue-version", b"x-accel-buffering",
        b"proxy-connection"))),
    "many": get(b"a:\r\n" * 99),
    "too_many": get(b"a:\r\n" * 100),
    "version": b"GET / HTTP/2.0\r\n\r\n",
    "tls": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n\n",
}
RESPONSE = {
    "close": ok(b""),
    "length": ok(b"Content-Length: 5\r\n") + b"hello",
    "chunked": ok(b"Transfer-Encoding: chunked\r\nContent-Type: text/event-stream\r\n"),
    "both": ok(b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"),
    "no_reason": b"HTTP/1.1 404\r\n\r\n",
    "empty_reason": b"HTTP/1.0 503 \r\nRetry-After: 1\r\nConnection: keep-alive\r\n\r\n",
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n" + ok(b""),
    "no_content": b"HTTP/1.1 204 No Content\r\nServer: x\r\nDate: y\r\n\r\n",
    "switching": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "icy": b"ICY 200 OK\r\n\r\n",
    "ssh": b"SSH-2.0-x\r\n\r\n",
}
CHUNK = {
    "one": b"\x035\r\nhello\r\n0\r\n\r\n",
    "sizes": b"\x071\r\na\r\n01;x=\"y\"\r\nb\r\nA \t;z\r\n0123456789\r\n0\r\n\r\nrest",
    "trailer": b"\x010\r\nA: b\r\nC:\r\n\r\n",
    "huge": b"\x00ffffffffffffffff\r\nxyz",
    "overflow": b"\x0010000000000000000\r\nxyz",
    "bare": b"\x021\nx\n0\n\n",
    "cut": b"\x04a\r\nabc",
}
JSON = {
    "chat": '{"model": "hy-mt", "messages": [{"role": "user", "content": "翻译：\\n你好"}], '
    '"stream": true, "max_tokens": 16, "temperature": 0.7, "stop": null}',
    "escaped_key": '{"\\u006dodel":"\\u0068y\\ud83d\\ude00"}',
    "duplicate": '{"model":1,"model":2}',
    "nested": '{"a":{"model":[{},[],""]},"model":{"model":[]}}',
    "last": '{"a":[1,-2.5e+10,0,1E-3],"b":[true,false,null],"model":"m"}',
    "empty": "{}",
    "array": "[[[[1]]],{}]",
    "string": '"\\"\\\\\\/\\b\\f\\n\\r\\t"',
    "lone": '{"model":"\\ud800","x\\u0000":1}',
    "nul": '{"model":"a\\u0000b"}',
    "number": '{"model":1e999,"b":123456789012345678901234567890}',
    "long": '{"model":"0123456789abcdef0123456789abcdef","é":"😀é你\x7f"}',
    "deep": '{"model":' + "[" * 255 + "]" * 255 + "}",
    "deeper": "[" * 257 + "]" * 257,
}
STICKY = {
    "chat": '{"model":"m","messages":[{"role":"user","content":"你好"},{"role":"assistant"}]}',
    "brackets": '{"messages": [ {"content":"]},\\"[{"} , [] ] }',
    "escapes": '{"messages":["\\\\","\\\\\\"","\\u005d"]}',
    "nested": '{"messages":[[[],[{"a":[{}]}]],1]}',
    "numbers": '{"messages":[ -1.5e3\t,2]}',
    "words": '{"messages":[null],"user":"u"}',
    "empty": '{"messages":[ \r\n\t ],"prompt":"p"}',
    "no_array": '{"messages":{"0":[1]},"user":"","prompt":["a","b"]}',
    "text": '{"messages":"[1,2]"}',
}
DICTS = {
    "request": ["GET ", "POST ", " HTTP/1.1\\x0d\\x0a", "\\x0d\\x0a", "\\x0d\\x0a\\x0d\\x0a", "Host: ",
                "Connection: ", "close", "keep-alive", "Transfer-Encoding: chunked",
                "Content-Length: ", "Expect: 100-continue", "http://", "OPTIONS * ", "%20"],
    "response": ["HTTP/1.1 ", "HTTP/1.0 ", "200", "204", "\\x0d\\x0a", "\\x0d\\x0a\\x0d\\x0a",
                 "Connection: ", "close", "keep-alive", "Transfer-Encoding: chunked",
                 "Content-Length: "],
    "chunk": ["\\x0d\\x0a", "0\\x0d\\x0a", "\\x0d\\x0a\\x0d\\x0a", ";", ": ", "ffffffff"],
    "json": ["{", "}", "[", "]", ":", ",", "\\\"model\\\"", "\\\"stream\\\"", "\\\\u006d",
             "\\\\ud83d\\\\ude00", "true", "false", "null", "1e5", "-0.5", "\\xe4\\xbd\\xa0"],
    "sticky": ["{", "}", "[", "]", ":", ",", " ", "\\\"messages\\\":", "\\\"user\\\":", "\\\"prompt\\\":",
               "\\\"", "\\\\", "\\\\\\\"", "null", "1e5", "\\xe4\\xbd\\xa0"],
}

for target, seeds in (("request", REQUEST), ("response", RESPONSE), ("chunk", CHUNK),
                      ("json", JSON), ("sticky", STICKY)):
    folder = here / "corpus" / target
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in seeds.items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    words = "".join(f'"{word}"\n' for word in DICTS[target])
    (here / f"{target}.dict").write_text(words)
