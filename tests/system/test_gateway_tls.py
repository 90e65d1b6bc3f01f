"""TLS at the gateway: the same answers, versions, protocols, ends, and another certificate live."""
import re
import socket
import ssl
import subprocess
import threading
import time

import pytest

from harness import SANITIZER, SLOW, Wire, chat, chunked, event_stream, head, model, post, wait_until
from harness.certificate import Certificate, issuer

pytestmark = pytest.mark.gateway


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    class Folder:
        folder = tmp_path_factory.mktemp("certificates")
    return {name: Certificate(Folder, name) for name in ("one", "two")}


@pytest.fixture
def secure(gateway, upstream, made):
    """secure(script, **gateway's): a gateway that speaks TLS on its last address, and its engine."""
    def make(script=None, **more):
        one = upstream(script, name="one")
        return gateway(models=[model("m", {"v1": (1, [one])})], certificate=made["one"],
                       **{"workers": 2, **more}), one
    return make


def anyone():
    """A client's context that takes any certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def s_client(g, *args, stdin=b""):
    host, port = g.addresses[-1]
    done = subprocess.run(["openssl", "s_client", "-connect", f"{host}:{port}", *args],
                          input=stdin, capture_output=True, timeout=60)
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


# --- the same as without ---------------------------------------------------------------------


def test_requests_of_all_kinds(secure):
    g, one = secure()
    with g.tls() as w:
        for _ in range(3):  # kept alive
            a = w.ask(post(chat("hello")))
            assert a.status == 200 and a.complete
        assert w.ask(head("GET", "/v1/models"), "GET").json()["data"][0]["id"] == "m"
        assert w.ask(head("HEAD", "/health"), "HEAD").status == 200
        w.send(post(chat()) + post(chat()) + head("GET", "/version"))  # pipelined
        assert [w.answer().status for _ in range(3)] == [200] * 3
        w.drip(post(chat("dripping")), 7)
        assert w.answer().status == 200
    assert one.requests[0].get("x-forwarded-proto") == "https"
    assert one.requests[0].get("x-forwarded-for") == "127.0.0.1"
    with g.wire() as w:  # the other address is as it was
        assert w.ask(post(chat())).status == 200
    assert one.requests[-1].get("x-forwarded-proto") == "http"


def test_large_bodies_both_ways(secure):
    def mirror(request, conn):
        conn.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(request.body)}\r\n\r\n".encode()
                  + request.body)

    g, _ = secure(mirror, limits={"body_bytes": 32 << 20})
    for size in (16383, 16384, 16385, 65536, 70000, 5_000_000):
        body = b'{"model":"m","x":"' + b"y" * size + b'"}'
        with g.tls() as w:
            a = w.ask(post(body))
            assert a.status == 200 and a.complete
            assert a.body == body.replace(b'"m"', b'"m@v1"', 1)


def test_a_slow_reader_gets_every_byte(secure):
    whole = bytes(range(256)) * 40000  # 10 MB

    def script(request, conn):
        conn.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(whole)}\r\n\r\n".encode() + whole)

    g, one = secure(script)
    with g.tls() as w:
        w.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        w.send(post(chat()))
        a = w.head()
        before = g.rss()
        for _ in range(20):
            time.sleep(0.01)
            w.more()
        assert g.rss() - before < 8 << 20, "what is not taken stays with the engine"
        w.body(a)
        assert a.complete and a.body == whole
        assert w.ask(post(chat())).body == whole


def test_streams_come_as_they_are_made(secure):
    go_on = threading.Event()

    def script(request, conn):
        conn.send(event_stream() + chunked(b"data: 1\n\n", last=False))
        assert go_on.wait(30 * SLOW)
        for i in range(2, 500):
            conn.send(chunked(b"data: %d\n\n" % i, last=False))
        conn.send(chunked(b"data: [DONE]\n\n"))

    g, _ = secure(script)
    with g.tls() as w:
        w.send(post(chat(stream=True)))
        a = w.head()
        while b"data: 1" not in w.buffer:
            assert w.more()
        go_on.set()
        w.body(a)
        assert a.complete and a.events() == [str(i) for i in range(1, 500)] + ["[DONE]"]


def test_a_client_that_leaves_ends_its_exchange(secure):
    def script(request, conn):
        conn.send(event_stream() + chunked(b"data: 1\n\n", last=False))
        conn.wait_end(30 * SLOW)

    g, one = secure(script)
    for leave in (lambda w: w.s.unwrap().close(), lambda w: w.s.close()):
        w = g.tls()
        w.send(post(chat(stream=True)))
        w.head()
        w.s.settimeout(0.2)
        try:  # unwrap() waits for our goodbye, which does not come while we read no more
            leave(w)
        except (OSError, ssl.SSLError):
            w.close()
        wait_until(lambda: g.counters.all()["connections"] == 0, 10 * SLOW)
    g.settled()
    assert g.replica(one)["cancelled"] == 2


# --- ends ------------------------------------------------------------------------------------


def test_whole_answers_end_with_a_goodbye_and_cuts_do_not(secure):
    """suppress_ragged_eofs is off: recv() gives b"" for close_notify and raises without."""
    def script(request, conn):
        if b"cut" in request.body:
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
            conn.reset()
        else:
            conn.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end")
            conn.close()

    g, _ = secure(script)
    with g.tls() as w:
        a = w.ask(post(chat(), "Connection: close"))
        assert a.complete and a.body == b"to the end"
        assert w.s.recv(1) == b""
    with g.tls() as w:  # HTTP/1.0: the connection's end is the answer's
        a = w.ask(post(chat(), version="HTTP/1.0"))
        assert a.framing == "close" and a.body == b"to the end"
    with g.tls() as w:
        w.send(post(chat("cut")))
        a = w.head()
        with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
            w.body(a)


def test_the_goodbye_waits_for_a_full_socket(secure):
    whole = b"z" * 3_000_000

    def script(request, conn):
        conn.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + whole)
        conn.close()

    g, _ = secure(script)
    for _ in range(5):
        with g.tls() as w:
            w.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            w.send(post(chat(), version="HTTP/1.0"))
            a = w.head()
            time.sleep(0.05)
            assert w.body(a).body == whole and a.complete


def test_idle_connections_end_with_a_goodbye(secure):
    g, _ = secure(timeouts={"idle": 300})
    with g.tls() as w:
        assert w.ask(post(chat())).status == 200
        assert w.s.recv(1) == b""


# --- what is agreed on -----------------------------------------------------------------------


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_versions(secure, version):
    g, _ = secure()
    context = anyone()
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    with g.tls(context) as w:
        assert w.s.version() == version.replace("_", ".")
        assert w.ask(post(chat())).status == 200
        name = w.s.cipher()[0]
        assert "GCM" in name or "CHACHA20" in name, name


@pytest.mark.parametrize("args", [
    ["-tls1"], ["-tls1_1"], ["-tls1_2", "-cipher", "AES128-SHA@SECLEVEL=0"],
    ["-tls1_2", "-cipher", "AES256-GCM-SHA384@SECLEVEL=0"],
    ["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA256@SECLEVEL=0"]], ids=" ".join)
def test_old_versions_and_ciphers_are_refused(secure, args):
    g, _ = secure()
    if "-cipher" not in args:
        args = [*args, "-cipher", "ALL@SECLEVEL=0"]
    code, said = s_client(g, *args)
    assert code != 0 and "alert" in said, said
    with g.tls() as w:
        assert w.ask(post(chat())).status == 200


@pytest.mark.parametrize("offered,chosen", [
    (["http/1.1"], "http/1.1"), (["h2", "http/1.1"], "http/1.1"), (None, None)])
def test_application_protocol(secure, offered, chosen):
    g, _ = secure()
    context = anyone()
    if offered:
        context.set_alpn_protocols(offered)
    with g.tls(context) as w:
        assert w.s.selected_alpn_protocol() == chosen
        assert w.ask(post(chat())).status == 200


def test_who_speaks_another_protocol_only_is_told(secure):
    g, _ = secure()
    context = anyone()
    context.set_alpn_protocols(["h2"])
    with pytest.raises(ssl.SSLError, match="(?i)application.protocol"):
        g.tls(context)


def test_renegotiation_is_refused(secure):
    g, _ = secure()
    _, said = s_client(g, "-tls1_2", stdin=b"R\n")
    assert re.search("no renegotiation|handshake failure|alert", said), said


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_sessions_are_resumed_by_any_worker(secure, version):
    g, _ = secure(workers=4)
    context = anyone()
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, version)
    with g.tls(context) as w:
        assert w.ask(post(chat())).status == 200
        session = w.s.session
    host, port = g.addresses[-1]
    for _ in range(8):
        with socket.create_connection((host, port)) as s:
            with context.wrap_socket(s, session=session) as t:
                assert t.session_reused
                t.sendall(post(chat(), "Connection: close"))
                assert t.recv(15) == b"HTTP/1.1 200 OK"


# --- who does not play by the rules ------------------------------------------------------------


def test_plain_http_is_told_where_it_is(secure):
    g, _ = secure()
    with Wire(g.addresses[-1]) as w:
        a = w.ask(head("GET", "/health"), "GET")
        assert a.status == 400 and "https://" in a.error["message"]


def test_rubbish_is_refused(secure):
    g, _ = secure()
    for rubbish in (b"\x00" * 100, b"\x16\x03\x01\xff\xff" + b"\x01" * 4000, b"\x80\x2e\x01\x00\x02",
                    b"SSH-2.0-x\r\n"):
        with Wire(g.addresses[-1]) as w:
            w.send(rubbish)
            w.finish()
            w.s.settimeout(10 * SLOW)
            try:
                while w.s.recv(65536):
                    pass
            except ConnectionError:
                pass
    wait_until(lambda: g.counters.all()["connections"] == 0, 10 * SLOW)
    with g.tls() as w:
        assert w.ask(post(chat())).status == 200


def test_a_handshake_has_a_deadline(secure):
    g, _ = secure(timeouts={"head": 500})
    with Wire(g.addresses[-1]) as silent, Wire(g.addresses[-1]) as begun:
        began = time.monotonic()
        begun.send(b"\x16\x03\x01\x02\x00\x01\x00")
        assert silent.ended(10 * SLOW) and begun.ended(10 * SLOW)
        assert time.monotonic() - began >= 0.4
    wait_until(lambda: g.counters.all()["connections"] == 0, 10)
    with g.tls() as w:  # the deadline was the handshake's
        time.sleep(0.7)
        assert w.ask(post(chat())).status == 200


def test_handshakes_in_pieces(secure, made):
    """A client whose bytes come one by one; memory BIOs, so that the test holds the wire."""
    g, _ = secure()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = made["one"].client().wrap_bio(incoming, outgoing, server_hostname="segue.test")

    with Wire(g.addresses[-1]) as w:
        def pump(step, size):
            while True:
                try:
                    return step()
                except ssl.SSLWantReadError:
                    w.drip(outgoing.read(), size)
                    incoming.write(w.s.recv(3))

        pump(client.do_handshake, 1)
        client.write(post(chat("in pieces")))
        w.drip(outgoing.read(), 1)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += pump(lambda: client.read(100), 1)
        assert answer.startswith(b"HTTP/1.1 200 OK")


def test_the_request_may_come_with_the_handshakes_end(secure, made):
    """TLS 1.3: the client's Finished and its request in one segment."""
    g, _ = secure()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = made["one"].client().wrap_bio(incoming, outgoing, server_hostname="segue.test")
    with Wire(g.addresses[-1]) as w:
        with pytest.raises(ssl.SSLWantReadError):
            client.do_handshake()
        w.send(outgoing.read())
        while True:
            incoming.write(w.s.recv(65536))
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                pass
        client.write(post(chat()))
        w.send(outgoing.read())
        answer = b""
        while not answer:
            incoming.write(w.s.recv(65536))
            try:
                answer = client.read(100)
            except ssl.SSLWantReadError:
                pass
        assert answer.startswith(b"HTTP/1.1 200 OK")


# --- another certificate -----------------------------------------------------------------------


def seen(g, made):
    context = ssl.create_default_context(cadata=made["one"].chain + made["two"].chain)
    with g.tls(context) as w:
        return issuer(w)


def test_a_certificate_is_exchanged_live(secure, made):
    release = threading.Event()

    def script(request, conn):
        if b"slow" in request.body:
            conn.send(event_stream() + chunked(b"data: 1\n\n", last=False))
            assert release.wait(30 * SLOW)
            conn.send(chunked(b"data: [DONE]\n\n"))
        else:
            conn.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    g, _ = secure(script)
    kept, streaming = g.tls(), g.tls()
    assert kept.ask(post(chat())).status == 200
    streaming.send(post(chat("slow", stream=True)))
    a = streaming.head()
    assert seen(g, made) == "one.segue.test"
    g.send_certificate(made["two"])
    g.publish()  # its acknowledgement says that the certificate was taken before
    for _ in range(8):
        assert seen(g, made) == "two.segue.test"
    assert kept.ask(post(chat())).status == 200, "connections keep what they began with"
    release.set()
    streaming.body(a)
    assert a.complete and a.events()[-1] == "[DONE]"
    kept.close(), streaming.close()


@pytest.mark.parametrize("chain,key,says", [
    ("two", "one", "does not belong"), ("one", "", "cannot be read"), ("", "one", "cannot be used"),
    ("one", "rubbish", "cannot be read"), ("rubbish", "one", "cannot be used")])
def test_a_bad_certificate_changes_nothing(secure, made, chain, key, says):
    g, _ = secure()
    texts = {"": ("", ""), "rubbish": ("-----BEGIN CERTIFICATE-----\nAAAA\n", "x" * 10000),
             **{name: (c.chain, c.key) for name, c in made.items()}}
    g.send({"type": "certificate", "chain": texts[chain][0], "key": texts[key][1]})
    refused = g.message()
    assert refused["type"] == "refused" and says in refused["message"], refused
    assert seen(g, made) == "one.segue.test"


def test_exchanges_under_load(secure, made):
    g, _ = secure(workers=2)
    stop, wrong, count = threading.Event(), [], [0] * 4
    context = ssl.create_default_context(cadata=made["one"].chain + made["two"].chain)

    def client(i):
        while not stop.is_set():
            try:
                with g.tls(context) as w:
                    for _ in range(3):
                        a = w.ask(post(chat()))
                        count[i] += a.status == 200
                        if a.status != 200:
                            wrong.append(a)
            except Exception as e:
                wrong.append(e)
                return

    threads = [threading.Thread(target=client, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for i in range(30):
        g.send_certificate(made["two" if i % 2 else "one"])
        g.publish()
    wait_until(lambda: sum(count) > 100, 60 * SLOW)
    stop.set()
    for t in threads:
        t.join()
    assert not wrong, wrong[:3]


@pytest.mark.skipif(SANITIZER != "", reason="a sanitizer's memory is not ours")
def test_idle_connections_cost_little(secure):
    g, _ = secure(workers=1)
    n = 200
    context = anyone()
    wires = [g.tls(context)]
    for w in wires:
        w.ask(post(chat()))
    before = g.rss()
    for _ in range(n):
        w = g.tls(context)
        w.ask(post(chat()))
        wires.append(w)
    each = (g.rss() - before) / n
    for w in wires:
        w.close()
    assert each < 40_000, f"{each:.0f} bytes"
