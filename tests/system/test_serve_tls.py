"""TLS through the whole: configured, served, renewed while it is used, and mistakes said."""
import signal
import ssl

import openai
import pytest

from harness import SLOW, Wire, chat, command, post, wait_until
from harness.certificate import Certificate, issuer

pytestmark = pytest.mark.whole

MODELS = {"m": {"versions": {"v1": command()}}}
BOTH = {"listen": ["127.0.0.1:0", "https://127.0.0.1:0"],
        "tls": {"certificate": "tls.crt", "key": "tls.key"}}


@pytest.fixture
def secure(box, segue):
    """secure(): segue with a certificate of its own, and that certificate."""
    def make(start=True, config=None, **more):
        (box.folder / "segue").mkdir()
        one = Certificate(box, "one", **more)
        put(box, one)
        return segue(MODELS, start=start, **(config or BOTH)), one
    return make


def put(box, certificate):
    """As a renewal does: the key, then the certificate, each with a rename."""
    for file, name in ((certificate.key_file, "tls.key"), (certificate.chain_file, "tls.crt")):
        new = box.folder / "segue" / (name + ".new")
        new.write_bytes(file.read_bytes())
        new.rename(box.folder / "segue" / name)


def tls_address(s):
    address = next(a for a in s.status()["gateway"]["listen"] if a.startswith("https://"))
    host, port = address[8:].rsplit(":", 1)
    return host, int(port)


def connect(address, *certificates):
    w = Wire(address)
    context = ssl.create_default_context(cadata="".join(c.chain for c in certificates))
    w.s = context.wrap_socket(w.s, server_hostname="segue.test", suppress_ragged_eofs=False)
    return w


def test_the_openai_client(secure):
    s, one = secure()
    host, port = tls_address(s)
    trust = ssl.create_default_context(cadata=one.chain)
    client = openai.OpenAI(base_url=f"https://{host}:{port}/v1", api_key="x", max_retries=0,
                           http_client=openai.DefaultHttpxClient(verify=trust))
    said = client.chat.completions.create(model="m",
                                          messages=[{"role": "user", "content": "hello"}])
    assert said.choices[0].message.content
    stream = client.chat.completions.create(model="m", stream=True,
                                            messages=[{"role": "user", "content": "hello"}])
    assert "".join(c.choices[0].delta.content or "" for c in stream if c.choices)
    assert f"https://{host}:{port}" in s.process.text(), "the line that says where it is"
    assert f"https://{host}:{port}" in s.cli("status").out
    s.cli("translate", "--to", "en", "你好")  # by the plain address


def test_renewed_while_it_is_used(box, secure):
    s, one = secure()
    address = tls_address(s)
    two, three = Certificate(box, "two"), Certificate(box, "three")
    kept = connect(address, one)
    assert kept.ask(post(chat(model="m"))).status == 200

    def seen():
        with connect(address, one, two, three) as w:
            assert w.ask(post(chat(model="m"))).status == 200
            return issuer(w)

    put(box, two)
    s.process.signal(signal.SIGHUP)
    wait_until(lambda: seen() == "two.segue.test", 20 * SLOW)
    put(box, three)  # noticed without a signal
    wait_until(lambda: seen() == "three.segue.test", 30 * SLOW)
    assert kept.ask(post(chat(model="m"))).status == 200
    kept.close()

    # Whoever comes after has it too: the next gateway, and the next manager's.
    old = s.kill9("gateway")
    wait_until(lambda: s.gateway_pid() not in (0, None, old) and seen() == "three.segue.test",
               30 * SLOW)
    s.kill9("manager")
    assert seen() == "three.segue.test"
    put(box, two)
    s.start()
    wait_until(lambda: seen() == "two.segue.test", 20 * SLOW)


MISTAKES = {
    "another's key": (lambda folder, other: (folder / "tls.key").write_text(other.key),
                      "does not belong to the certificate"),
    "cut": (lambda folder, other: (folder / "tls.crt").write_text(other.chain[:300]),
            "the certificate cannot be used"),
    "empty": (lambda folder, other: (folder / "tls.key").write_text(""),
              "the private key cannot be read"),
    "gone": (lambda folder, other: (folder / "tls.crt").unlink(), "cannot be read: No such file"),
    "a folder": (lambda folder, other: ((folder / "tls.key").unlink(), (folder / "tls.key").mkdir()),
                 "cannot be read: Is a directory"),
}


def test_a_mistake_keeps_the_one_before(box, secure):
    s, one = secure()
    address = tls_address(s)
    other = Certificate(box, "other")
    for name, (make, says) in MISTAKES.items():
        make(box.folder / "segue", other)
        s.process.signal(signal.SIGHUP)
        wait_until(lambda: says in s.process.text(), 20 * SLOW, f"{name}: {says}")
        assert "the certificate before it stays" in s.process.text()
        with connect(address, one) as w:
            assert w.ask(post(chat(model="m"))).status == 200
        if (box.folder / "segue" / "tls.key").is_dir():
            (box.folder / "segue" / "tls.key").rmdir()
        put(box, one)
    said = s.process.text()
    assert "BEGIN" not in said and one.key.splitlines()[1] not in said


BAD_STARTS = {
    "expired": ({"dates": ("20200101000000Z", "20200201000000Z")}, "was valid until 2020-02-01"),
    "not yet": ({"dates": ("20990101000000Z", "20990201000000Z")}, "is not valid before 2099-01-01"),
    "weak": ({"kind": ("rsa:1024",)}, "the certificate cannot be used"),
}


@pytest.mark.parametrize("name", BAD_STARTS)
def test_a_certificate_that_cannot_serve_does_not_start(secure, name):
    how, says = BAD_STARTS[name]
    s, _ = secure(start=False, **how)
    s.start(ready=False)
    s.process.expect.add(1)
    assert s.process.wait(30 * SLOW) == 1
    assert says in s.process.text(), s.process.text()
    assert "tls" in s.process.text()


def test_tls_alone(secure):
    s, one = secure(start=False, config={**BOTH, "listen": "https://127.0.0.1:0"})
    s.start(ready=False)
    wait_until(lambda: "ready on https://" in s.process.text(), 30 * SLOW)
    with connect(tls_address(s), one) as w:
        assert w.ask(post(chat(model="m"))).status == 200
    assert "every address of the gateway speaks TLS" in s.cli("translate", "--to", "en", "x",
                                                              expect=1).err


def test_it_ends_soon(secure):
    s, _ = secure(days=3)
    assert "is valid until" in s.process.text() and "only" in s.process.text()
