"""The translate page in a real browser: Chromium against a gateway, and against `segue serve`."""
import hashlib
import json
import re
import subprocess
import threading

import pytest
from playwright.sync_api import expect, sync_playwright

from harness import ROOT, SLOW, binary, chunked, event_stream, model, wait_until
from harness.upstream import answer

CHROMIUM = "/usr/bin/chromium"
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
        "--disable-component-update", "--disable-sync", "--disable-quic"]
CHINESE = "将以下文本翻译为{}，注意只需要输出翻译后的结果，不要额外解释：\n\n{}"
ENGLISH = "Translate the following segment into {}, without additional explanation.\n\n{}"


@pytest.fixture(scope="module")
def chromium():
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=ARGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium):
    """visit(address): the page there, in a window of its own. Everything that it asks for must be
    its own origin's, and it may not throw."""
    contexts, strangers, faults = [], [], []

    def open_page(address, **window):
        window.setdefault("locale", "en-US")
        context = chromium.new_context(**window)
        contexts.append(context)
        context.set_default_timeout(15000 * SLOW)
        page = context.new_page()
        origin = f"http://{address[0]}:{address[1]}/"
        page.on("request", lambda r: r.url.startswith(origin) or strangers.append(r.url))
        page.on("pageerror", lambda e: faults.append(str(e)))
        page.on("console", lambda m: faults.append(m.text) if "Security Policy" in m.text else None)
        page.goto(origin)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not strangers, "the page asked somebody else"
    assert not faults


def piece(text):
    data = json.dumps({"choices": [{"index": 0, "delta": {"content": text}}]}, ensure_ascii=False)
    return chunked(f"data: {data}\n\n".encode(), last=False)


DONE = chunked(b"data: [DONE]\n\n")


def says(*texts):
    """A script: the texts as pieces of a stream."""
    def script(request, conn):
        conn.send(event_stream() + b"".join(piece(t) for t in texts) + DONE)
    return script


def idle(page):
    expect(page.locator("#stop")).to_be_hidden()
    expect(page.locator("#go")).to_be_enabled()


def ask(page, text):
    page.fill("#text", text)
    page.click("#go")


# --- the stream -----------------------------------------------------------------------------


def test_streams_as_it_comes(gateway, upstream, visit):
    go_on = threading.Event()

    def script(request, conn):
        conn.send(event_stream() + piece("Guten "))
        assert go_on.wait(60)
        conn.send(piece("Tag, 世界 🙂") + DONE)

    engine = upstream(script)
    page = visit(gateway(models=[model("m", {"v7": (1, [engine])})]).address)
    page.fill("#text", "Good day")
    page.press("#text", "Control+Enter")
    expect(page.locator("#answer")).to_have_text("Guten")
    expect(page.locator("#answer")).to_have_attribute("aria-busy", "true")
    expect(page.locator("#version")).to_have_text("m@v7")
    expect(page.locator("#stop")).to_be_visible()
    expect(page.locator("#go")).to_be_disabled()
    go_on.set()
    idle(page)
    expect(page.locator("#answer")).to_have_text("Guten Tag, 世界 🙂")
    expect(page.locator("#stats")).to_have_text(re.compile(r"^[\d.]+ m?s · \d+ tokens/s$"))
    assert page.get_attribute("#answer", "aria-busy") is None
    sent = engine.requests[-1].json()
    assert sent["stream"] is True and sent["model"] == "m@v7"


def test_stop_ends_the_work_of_the_engine(gateway, upstream, visit):
    gone = threading.Event()

    def script(request, conn):
        conn.send(event_stream() + piece("never ") + piece("ending"))
        conn.wait_end(30 * SLOW)
        gone.set()

    page = visit(gateway(models=[model("m", {"v1": (1, [upstream(script)])})]).address)
    ask(page, "hello")
    expect(page.locator("#answer")).to_have_text("never ending")
    page.click("#stop")
    idle(page)
    assert gone.wait(30 * SLOW)
    expect(page.locator("#stats")).to_have_text(re.compile("stopped$"))
    expect(page.locator("#answer")).to_have_text("never ending")
    expect(page.locator("#error")).to_be_hidden()


def refused(request, conn):
    conn.send(answer({"error": {"message": "the prompt has 9 tokens too many", "type": "x",
                                "param": None, "code": "y"}}, status=400, reason="Bad Request"))


def broken(request, conn):
    conn.send(event_stream() + piece("half ") + chunked(
        b'data: {"error":{"message":"out of memory"}}\n\n'))


def undone(request, conn):
    conn.send(event_stream() + piece("half ") + chunked())


@pytest.mark.parametrize("script, says_why, kept", [
    (refused, "the prompt has 9 tokens too many", ""),
    (broken, "out of memory", "half"),
    (undone, "The answer was cut before its end.", "half"),
], ids=["refused", "error in the stream", "no end"])
def test_faults_are_said(gateway, upstream, visit, script, says_why, kept):
    engine = upstream(script)
    page = visit(gateway(models=[model("m", {"v1": (1, [engine])})]).address)
    ask(page, "hello")
    expect(page.locator("#error")).to_be_visible()
    expect(page.locator("#error")).to_have_text(says_why)
    idle(page)
    expect(page.locator("#answer")).to_have_text(kept)
    engine.script = says("well again")
    page.click("#go")
    expect(page.locator("#answer")).to_have_text("well again")
    expect(page.locator("#error")).to_be_hidden()


def test_a_cut_is_seen(gateway, upstream, visit):
    seen = threading.Event()

    def script(request, conn):
        conn.send(event_stream() + piece("half"))
        assert seen.wait(60)
        conn.close()

    page = visit(gateway(models=[model("m", {"v1": (1, [upstream(script)])})]).address)
    ask(page, "hello")
    expect(page.locator("#answer")).to_have_text("half")
    seen.set()
    expect(page.locator("#error")).to_be_visible()
    idle(page)
    expect(page.locator("#answer")).to_have_text("half")


def test_a_key_is_asked_for_where_one_is_needed(gateway, upstream, visit):
    key = "sk-segue-" + "a1" * 32
    sha256 = hashlib.sha256(key.encode()).hexdigest()
    engine = upstream(says("good"))
    g = gateway(models=[model("m", {"v1": (1, [engine])})], extra={"keys_required": True, "keys": [
        {"name": "page", "sha256": sha256, "models": [], "concurrency": 0, "rate": 0}]})
    page = visit(g.address)
    expect(page.locator("#error")).to_have_text("This server needs an API key.")
    expect(page.locator("#key")).to_be_focused()
    page.fill("#key", "sk-segue-wrong")
    page.press("#key", "Enter")
    expect(page.locator("#error")).to_have_text("The server does not know this API key.")
    page.fill("#key", key)
    page.press("#key", "Enter")
    expect(page.locator("#key-form")).to_be_hidden()
    expect(page.locator("#error")).to_be_hidden()
    ask(page, "gut")
    expect(page.locator("#answer")).to_have_text("good")
    page.reload()  # it holds until the window is closed, and no longer
    ask(page, "gut")
    expect(page.locator("#answer")).to_have_text("good")
    expect(page.locator("#key-form")).to_be_hidden()
    assert key not in page.evaluate("JSON.stringify(localStorage)")
    assert all(r.get("authorization") is None for r in engine.requests)


def test_no_server(gateway, upstream, visit):
    g = gateway(models=[model("m", {"v1": (1, [upstream()])})])
    page = visit(g.address)
    expect(page.locator("#model option")).to_have_count(1)
    page.route("**/v1/**", lambda route: route.abort())
    ask(page, "hello")
    expect(page.locator("#error")).to_have_text("The server cannot be reached.")
    idle(page)


# --- what is asked --------------------------------------------------------------------------


@pytest.mark.parametrize("from_, to, text, prompt", [
    ("", "en", "你好，世界。", CHINESE.format("英语", "你好，世界。")),
    ("", "zh-Hant", "Hello", CHINESE.format("繁体中文", "Hello")),
    ("", "de", "Bonjour", ENGLISH.format("German", "Bonjour")),
    ("", "en", "日本語です", ENGLISH.format("English", "日本語です")),
    ("yue", "fr", "OK", CHINESE.format("法语", "OK")),
    ("ja", "ko", "日本", ENGLISH.format("Korean", "日本")),
    ("", "en", "<b>&\"\n\t你好\u2028", CHINESE.format("英语", "<b>&\"\n\t你好")),
])
def test_prompts(gateway, upstream, visit, from_, to, text, prompt):
    engine = upstream(says("ok"))
    page = visit(gateway(models=[model("m", {"v1": (1, [engine])})]).address)
    page.fill("#text", text)
    page.select_option("#from", from_)
    page.select_option("#to", to)
    page.click("#go")
    expect(page.locator("#answer")).to_have_text("ok")
    assert engine.requests[-1].json()["messages"] == [{"role": "user", "content": prompt}]


def test_the_target_is_guessed_until_it_is_chosen(gateway, upstream, visit):
    page = visit(gateway(models=[model("m", {"v1": (1, [upstream()])})]).address)
    page.fill("#text", "Good morning")
    assert page.input_value("#to") == "zh"
    page.fill("#text", "早上好")
    assert page.input_value("#to") == "en"
    page.select_option("#to", "fr")
    page.fill("#text", "Good morning")
    assert page.input_value("#to") == "fr"
    page.reload()
    assert page.input_value("#to") == "fr"


def test_an_answer_is_text(gateway, upstream, visit):
    page = visit(gateway(models=[model("m", {"v1": (1, [upstream(says("<img src=x onerror=1>"))])})])
                 .address)
    ask(page, "hello")
    expect(page.locator("#answer")).to_have_text("<img src=x onerror=1>")
    assert page.locator("#answer img").count() == 0


def test_models_and_swap(gateway, upstream, visit):
    engine = upstream(says("你好"))
    g = gateway(models=[model("a", {"v1": (1, [engine])}), model("b", {"v1": (1, [engine])})])
    page = visit(g.address)
    expect(page.locator("#model")).to_be_visible()
    page.select_option("#model", "b")
    ask(page, "hello")
    expect(page.locator("#version")).to_have_text("b@v1")
    expect(page.locator("#answer")).to_have_text("你好")
    page.click("#swap")
    assert page.input_value("#text") == "你好"
    expect(page.locator("#answer")).to_have_text("hello")
    assert (page.input_value("#from"), page.input_value("#to")) == ("zh", "en")


# --- how it looks and reads -----------------------------------------------------------------


def test_two_languages(gateway, upstream, visit):
    g = gateway(models=[model("m", {"v1": (1, [upstream()])})])
    page = visit(g.address, locale="zh-CN")
    expect(page.locator("#go")).to_have_text("翻译")
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
    assert page.locator("#to option").count() == 38
    assert page.locator('#to option[value="bo"]').inner_text() == "藏语"
    page.click("#ui-language")
    expect(page.locator("#go")).to_have_text("Translate")
    assert page.locator('#to option[value="bo"]').inner_text() == "Tibetan"
    page.reload()
    expect(page.locator("#go")).to_have_text("Translate")


@pytest.mark.parametrize("width, height", [(320, 568), (390, 844), (820, 1180), (1440, 900)])
def test_fits(gateway, upstream, visit, width, height):
    page = visit(gateway(models=[model("m", {"v1": (1, [upstream(says("word " * 300))])})]).address,
                 viewport={"width": width, "height": height})
    ask(page, "hello " * 60)
    expect(page.locator("#answer")).to_contain_text("word word")
    idle(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    expect(page.locator("#go")).to_be_in_viewport()


def test_everything_has_a_name(gateway, upstream, visit):
    page = visit(gateway(models=[model("m", {"v1": (1, [upstream()])})]).address)
    nameless = page.evaluate("""() => [...document.querySelectorAll("button, select, textarea, output")]
        .filter((e) => !(e.textContent.trim() && e.tagName === "BUTTON") && !e.labels?.length &&
                       !e.getAttribute("aria-label"))
        .map((e) => e.id)""")
    assert nameless == []
    ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
    assert len(ids) == len(set(ids))


@pytest.mark.gateway
def test_files(gateway):
    g = gateway(models=[])
    with g.wire() as w:
        page = w.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET")
        assert page.status == 200 and page.get("content-type") == "text/html; charset=utf-8"
        assert page.get("content-security-policy").startswith("default-src 'self'")
        assert page.get("x-content-type-options") == "nosniff"
        assert not re.search(rb"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=|https?://", page.body)
        again = w.ask(f"GET / HTTP/1.1\r\nHost: a\r\nIf-None-Match: {page.get('etag')}\r\n\r\n"
                      .encode(), "GET")
        assert again.status == 304 and again.body == b""
        for target in ["/web/", "/web/index.html", "/web/../README.md", "/web/%2e%2e/x", "//web/app.js"]:
            refused = w.ask(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), "GET")
            assert refused.status == 404 and refused.error, target


# --- with everything ------------------------------------------------------------------------


@pytest.mark.whole
def test_the_version_changes_under_the_page(box, visit):
    """tiny-mt translates; after `segue deploy` the same page gets the new version's answer."""
    models = ROOT / "models"
    (box.folder / "segue.yaml").write_text(json.dumps({
        "listen": "127.0.0.1:0", "workers": 1, "engine_program": binary("segue-engine"),
        "models": {"tiny-mt": {"versions": {
            "v1": {"engine": "builtin", "path": str(models / "tiny-mt-v1.gguf")}}}}}))
    serve = box.start("serve", [binary("segue"), "serve", "-c", "segue.yaml"])
    ready = wait_until(lambda: re.search(r"ready on http://([\d.]+):(\d+)", serve.text()), 30 * SLOW)
    page = visit((ready.group(1), ready.group(2)))
    ask(page, "你好，世界。")
    expect(page.locator("#version")).to_have_text("tiny-mt@v1")
    idle(page)
    expect(page.locator("#answer")).to_have_text(re.compile("world", re.I))
    segue = [binary("segue"), "--socket", "run/admin.sock"]
    deploy = subprocess.run([*segue, "deploy", "tiny-mt", models / "tiny-mt-v2.gguf"],
                            cwd=box.folder, env=box.env, capture_output=True, text=True)
    assert deploy.returncode == 0, deploy.stderr
    page.click("#go")
    expect(page.locator("#version")).to_have_text("tiny-mt@v2")
    idle(page)
    expect(page.locator("#answer")).to_have_text(re.compile("world", re.I))
    # The command line asks the same gateway in the same words.
    said = subprocess.run([*segue, "translate", "你好，世界。", "--to", "en", "-v"],
                          cwd=box.folder, env=box.env, capture_output=True, text=True)
    assert said.returncode == 0 and re.search("world", said.stdout, re.I), said
    assert said.stderr.startswith("tiny-mt@v2 ")
