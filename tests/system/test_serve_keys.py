"""API keys through the whole: made, shown once, used, limited, revoked, remembered."""
import sqlite3

import openai
import pytest

from harness import Wire, chat, command, head, post, wait_until

pytestmark = pytest.mark.whole

MODELS = {"hy-mt": {"versions": {"v1": command()}}, "other": {"versions": {"v1": command()}}}


def client(s, key):
    return openai.OpenAI(base_url=s.url + "/v1", api_key=key, max_retries=0, timeout=30)


def ask(s, key, model="hy-mt"):
    return client(s, key).chat.completions.create(
        model=model, messages=[{"role": "user", "content": "hello"}])


def test_made_used_and_revoked(segue):
    s = segue(MODELS, keys="required")
    with pytest.raises(openai.AuthenticationError) as e:
        ask(s, "sk-anything")
    assert e.value.code == "invalid_api_key" and "segue key add" in e.value.message
    assert s.ask(head("GET", "/v1/models"), "GET").status == 401

    made = s.cli("key", "add", "ci")
    key = made.out.strip()
    assert key.startswith("sk-segue-") and len(key) == 9 + 64 and made.out.count("\n") == 1
    assert "not be shown again" in made.err
    assert ask(s, key).choices[0].message.content
    assert {m.id for m in client(s, key).models.list()} >= {"hy-mt", "other"}
    stream = client(s, key).chat.completions.create(
        model="hy-mt", stream=True, messages=[{"role": "user", "content": "hello"}])
    assert [c for c in stream]
    a = s.ask(post(chat(model="hy-mt"), f"x-api-key: {key}"))
    assert a.status == 200

    # Its text is in no file: store, log, table.
    for path in s.folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert key.encode() not in path.read_bytes(), path
    assert key not in s.cli("key", "list").out + s.cli("key", "list", "--json").out

    s.cli("key", "revoke", "ci")  # answers when all workers go by it
    for _ in range(20):
        with pytest.raises(openai.AuthenticationError):
            ask(s, key)
    assert "no key 'ci'" in s.cli("key", "revoke", "ci", expect=1).err


def test_what_a_key_may(segue):
    s = segue(MODELS, keys="required")
    key = s.cli("key", "add", "ci", "--model", "other", "--rate", "3/s", "--concurrency", 2,
                "--json").json()
    assert key["models"] == ["other"] and key["rate"] == 3 and key["concurrency"] == 2
    with pytest.raises(openai.PermissionDeniedError) as e:
        ask(s, key["key"])
    assert e.value.code == "model_not_allowed"
    good = 0
    with pytest.raises(openai.RateLimitError) as e:
        for good in range(100):
            ask(s, key["key"], "other")
    assert e.value.code == "rate_limit_exceeded" and good >= 2
    assert e.value.response.headers["retry-after"] == "1"
    # The client's own patience is enough.
    patient = openai.OpenAI(base_url=s.url + "/v1", api_key=key["key"], max_retries=5)
    for _ in range(4):
        patient.chat.completions.create(model="other",
                                        messages=[{"role": "user", "content": "x"}])

    s.cli("key", "add", "both", "-m", "hy-mt", "-m", "other")
    assert s.cli("key", "list", "--json").json() == {"required": True, "keys": [
        {"name": "both", "models": ["hy-mt", "other"], "concurrency": 0, "rate": 0,
         "added": s.cli("key", "list", "--json").json()["keys"][0]["added"]},
        {"name": "ci", "models": ["other"], "concurrency": 2, "rate": 3,
         "added": s.cli("key", "list", "--json").json()["keys"][1]["added"]}]}
    table = s.cli("key", "list").out.splitlines()
    assert table[0].split() == ["NAME", "MODELS", "CONCURRENCY", "RATE", "ADDED"]
    assert table[1].split()[:4] == ["both", "hy-mt,", "other", "any"]
    assert table[2].split()[:4] == ["ci", "other", "2", "3/s"]


REFUSED = {
    "a name twice": (["ci"], 1, "already"),
    "a bad name": (["a b"], 1, "cannot be a key's name"),
    "an unknown model": (["x", "--model", "hy"], 1, "there is no model 'hy'"),
    "a rate that is none": (["x", "--rate", "fast"], 2, "for example 10/s"),
    "a rate of 0": (["x", "--rate", "0/s"], 2, "for example 10/s"),
    "a rate beyond all": (["x", "--rate", "10000000/s"], 1, "at most 1000000"),
    "a concurrency of 0": (["x", "--concurrency", "0"], 2, "a number from 1"),
    "no name": ([], 2, "key add takes NAME"),
}


def test_what_is_not_made(segue):
    s = segue(MODELS)
    s.cli("key", "add", "ci")
    wrong = []
    for name, (words, status, says) in REFUSED.items():
        done = s.cli("key", "add", *words, expect=None)
        if done.status != status or says not in done.err:
            wrong.append(f"{name}: {done}")
    assert not wrong, "\n".join(wrong)
    assert "key what?" in s.cli("key", expect=2).err
    assert "did you mean 'key revoke'" in s.cli("key", "revok", "ci", expect=2).err
    assert [k["name"] for k in s.cli("key", "list", "--json").json()["keys"]] == ["ci"]


def test_not_required_until_it_is(segue):
    s = segue(MODELS)
    made = s.cli("key", "add", "ci")
    assert "keys: required" in made.err
    key = made.out.strip()
    assert ask(s, "sk-anything").choices
    assert ask(s, key).choices
    s.stop()
    s.configure(MODELS, keys="required")
    s.start()
    assert ask(s, key).choices, "the store has kept it"
    with pytest.raises(openai.AuthenticationError):
        ask(s, "sk-anything")
    done = s.cli("translate", "--to", "en", "--model", "hy-mt", "你好", expect=1)
    assert "an API key is needed" in done.err
    s.box.env["SEGUE_API_KEY"] = key
    s.cli("translate", "--to", "en", "--model", "hy-mt", "你好")


def test_keys_outlive_every_process(segue):
    s = segue(MODELS, keys="required")
    key = s.cli("key", "add", "ci").out.strip()
    host, port = s.address

    def state(k=key):
        with Wire((host, port)) as w:
            return w.ask(post(chat(model="hy-mt"), f"Authorization: Bearer {k}")).status

    assert state() == 200
    s.kill9("manager")
    assert state() == 200 and state("sk-segue-x") == 401, "the gateway goes on with its table"
    s.start()
    assert state() == 200 and state("sk-segue-x") == 401
    old = s.kill9("gateway")
    wait_until(lambda: s.gateway_pid() not in (0, None, old), 20)
    wait_until(lambda: state() == 200, 20)
    assert state("sk-segue-x") == 401
    s.cli("key", "revoke", "ci")
    assert state() == 401
    s.stop()
    db = sqlite3.connect(s.folder / "run" / "segue.db")
    assert db.execute("SELECT count(*) FROM api_key").fetchone() == (0,)
    db.close()
