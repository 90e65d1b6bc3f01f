"""Real clients against the whole: the official openai library, curl, and the command line."""
import asyncio
import json
import subprocess

import openai as library
import pytest

from harness import SLOW, binary, builtin, wait_until

pytestmark = pytest.mark.whole

ASK = "将以下文本翻译为英语，注意只需要输出翻译后的结果，不要额外解释：\n\n你好，世界。"
ANSWER = "Hello, world."
BOTH = {"hy-mt": {"serve": "v1", "aliases": ["tencent/HY-MT"],
                  "versions": {"v1": builtin(), "v2": builtin("tiny-mt-v2.gguf")}}}


@pytest.fixture
def one(segue):
    return segue(BOTH)


def client(s, **more):
    return library.OpenAI(base_url=s.url + "/v1", api_key="any", max_retries=0, timeout=60, **more)


def ask(c, model="hy-mt", **more):
    return c.chat.completions.create(model=model, temperature=0,
                                     messages=[{"role": "user", "content": ASK}], **more)


def test_openai_library(one):
    with client(one) as c:
        assert [m.id for m in c.models.list()] == ["hy-mt"]
        assert c.models.retrieve("hy-mt").id == "hy-mt"

        a = ask(c)
        assert a.choices[0].message.content == ANSWER and a.choices[0].finish_reason == "stop"
        assert a.model == "hy-mt@v1" and a.usage.completion_tokens > 0
        for name in ("tencent/HY-MT", "hy-mt@v1"):
            assert ask(c, name).choices[0].message.content == ANSWER

        with ask(c, stream=True, stream_options={"include_usage": True}) as stream:
            parts = list(stream)
        text = "".join(p.choices[0].delta.content or "" for p in parts if p.choices)
        assert text == ANSWER and parts[-1].usage.completion_tokens > 0
        assert [p.choices[0].finish_reason for p in parts if p.choices][-1] == "stop"

        raw = c.chat.completions.with_raw_response.create(
            model="hy-mt", messages=[{"role": "user", "content": ASK}],
            extra_headers={"X-Request-Id": "mine-1"})
        assert raw.headers["x-segue-version"] == "hy-mt@v1"
        assert raw.headers["x-request-id"] == "mine-1"

        a = c.completions.create(model="hy-mt", prompt="你好", max_tokens=5, temperature=0)
        assert a.object == "text_completion" and a.choices[0].finish_reason in ("stop", "length")


def test_openai_library_maps_our_errors(one):
    with client(one) as c:
        with pytest.raises(library.NotFoundError) as e:
            ask(c, "nobody")
        assert e.value.code == "model_not_found" and "hy-mt" in e.value.message
        with pytest.raises(library.BadRequestError):
            c.chat.completions.create(model="hy-mt", messages=[])
        with pytest.raises(library.NotFoundError):
            c.models.retrieve("nobody")
        with pytest.raises(library.APIStatusError) as e:
            c.chat.completions.create(model="hy-mt",
                                      messages=[{"role": "user", "content": "x" * (9 << 20)}])
        assert e.value.status_code == 413


def test_openai_library_asynchronous(one):
    async def main():
        async with library.AsyncOpenAI(base_url=one.url + "/v1", api_key="any", max_retries=0,
                                       timeout=60) as c:
            async def plain():
                return (await ask(c)).choices[0].message.content

            async def streamed():
                return "".join([p.choices[0].delta.content or ""
                                async for p in await ask(c, stream=True) if p.choices])
            return await asyncio.gather(*(plain() if i % 2 else streamed() for i in range(40)))
    assert asyncio.run(main()) == [ANSWER] * 40


def test_openai_library_stream_that_is_given_up(one):
    """Closing the stream leaves the engine alone at once."""
    with client(one) as c:
        stream = ask(c, stream=True, max_tokens=500)
        next(iter(stream))
        stream.close()
    wait_until(lambda: one.version("v1")["counters"]["in_flight"] == 0, 3)


def test_curl(one):
    body = json.dumps({"model": "hy-mt", "temperature": 0,
                       "messages": [{"role": "user", "content": ASK}]})

    def curl(*args):
        done = subprocess.run(["curl", "-sS", "--http1.1", "--max-time", "60", *args],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout
    url = one.url + "/v1/chat/completions"
    fields = ["-H", "Content-Type: application/json"]
    assert json.loads(curl(*fields, "-d", body, url))["choices"][0]["message"]["content"] == ANSWER
    # chunked upload, Expect, HTTP/1.0, compression that nobody offers
    for more in (["-H", "Transfer-Encoding: chunked"], ["-H", "Expect: 100-continue"],
                 ["--http1.0"], ["--compressed"]):
        assert ANSWER in curl(*fields, *more, "-d", body, url), more
    out = curl("-N", *fields, "-d", body.replace('"temp', '"stream": true, "temp'), url)
    assert out.endswith("data: [DONE]\n\n")


def test_translate_command(one):
    assert one.cli("translate", "你好，世界。", "--to", "en").out.strip() == ANSWER
    assert one.cli("translate", "-", "--to", "en", stdin="你好，世界。").out.strip() == ANSWER
    one.cli("translate", "x", "--to", "klingon", expect=2)


def test_commands_that_only_look(one):
    status = one.cli("status", "--json").json()
    assert status["models"][0]["serving"] == "v1"
    assert "hy-mt" in one.cli("status").out
    versions = one.cli("versions", "--json").json()["versions"]
    assert {v["name"] for v in versions} == {"v1", "v2"}
    assert "is ready" in one.cli("logs", "hy-mt@v1#0").out
    one.cli("logs", "hy-mt@v7#0", expect=1)
    one.cli("nonsense", expect=2)
    one.cli("switch", "hy-mt", expect=2)
    done = one.cli("switch", "hy-mt", "v9", expect=1)
    assert "v9" in done.err and "v1" in done.err
    one.cli("switch", "nobody", "v1", expect=1)


def test_no_server_is_exit_status_3(box):
    done = subprocess.run([binary("segue"), "--socket", str(box.folder / "none.sock"), "status"],
                          capture_output=True, text=True, env=box.env, timeout=20 * SLOW)
    assert done.returncode == 3 and "none.sock" in done.stderr
