"""Which models the engine `agent` asks, and what it knows of an earlier run."""

from __future__ import annotations

import sys
import types
import uuid
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pydantic_ai", reason="needs the extra agent")
pytest.importorskip("openai", reason="needs the extra agent")

from sparrow_mp.engines.agent import AgentEngine
from sparrow_mp.engines.agent_models import Candidate, Choice, ModelUnusable, choices, open_model
from sparrow_mp.engines.agent_recall import recall
from sparrow_mp.engines.agent_secrets import key_of
from sparrow_mp.events import (
    Block,
    CostUpdate,
    Custom,
    Event,
    Message,
    RouteSelected,
    RunStarted,
    ToolOutput,
    ToolUseProposed,
    encode,
)
from sparrow_mp.settings import Config, EndpointSettings, ModelsSettings
from tests.support.conversing import hold
from tests.support.model_server import model_server, says
from tests.support.recording_run import RecordingRun

pytestmark = pytest.mark.unit


def choose(asked: str | None, env: dict[str, str], **settings: Any) -> list[Choice]:
    endpoints = {"lab": EndpointSettings(base_url="http://lab/v1", model="big", key_env="LAB", context_window=9)}
    return choices(Config(models=ModelsSettings(**settings), endpoints=endpoints), asked, env)


def opened(name: str, env: dict[str, str], **settings: Any) -> Candidate:
    (choice,) = choose(name, env, **settings)
    return open_model(choice, env)


@pytest.mark.parametrize(
    ("asked", "env", "settings", "names"),
    [
        (None, {}, {}, []),
        (None, {"OPENAI_API_KEY": "x"}, {}, ["openai:gpt-5.6-luna"]),
        (None, {"OPENAI_API_KEY": "x"}, {"chain": ["lab", "a:b"]}, ["lab", "a:b"]),
        ("x, lab", {}, {"chain": ["y"]}, ["x", "lab"]),
    ],
)
def test_which_models_are_asked(
    asked: str | None, env: dict[str, str], settings: dict[str, Any], names: list[str]
) -> None:
    assert [choice.name for choice in choose(asked, env, **settings)] == names


def test_an_endpoint_has_its_model_its_key_and_its_window() -> None:
    candidate = opened("lab", {"LAB": "key"})
    assert (candidate.model.model_name, candidate.window) == ("big", 9)
    plain = opened("qwen3:8b", {}, base_url="http://x/v1", context_window=5)
    assert (plain.model.model_name, plain.window) == ("qwen3:8b", 5)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("lab", "its key is missing: set the variable LAB"),
        ("nothing", "it is unknown: write `provider:model`"),
        ("no-such-provider:x", "Unknown model: no-such-provider:x"),
        ("openai:gpt-5.6-luna", "OPENAI_API_KEY"),
        ("anthropic:claude-haiku-5-5", "pip install 'pydantic-ai-slim[anthropic]'"),
    ],
)
def test_a_model_that_cannot_be_asked_says_why(name: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(ModelUnusable) as refused:
        opened(name, {})
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_key_may_be_in_the_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {("sparrow", "LAB"): "from-the-keyring"}
    ring = types.SimpleNamespace(get_password=lambda service, name: kept.get((service, name)))
    monkeypatch.setitem(sys.modules, "keyring", ring)
    assert key_of("LAB", {}) == "from-the-keyring"
    assert key_of("LAB", {"LAB": "from-the-environment"}) == "from-the-environment"
    assert key_of("OTHER", {}) is None

    def locked(*_: str) -> str:
        raise RuntimeError("locked")

    ring.get_password = locked
    assert key_of("LAB", {}) is None


def test_without_the_extra_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "openai" else name)
    with pytest.raises(LookupError, match=r"pip install 'sparrow-mp\[agent\]'"):
        AgentEngine().find(RecordingRun(tmp_path).context)


def test_what_is_known_of_a_provider_s_model_is_its_window_and_its_price(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RecordingRun(tmp_path)
    with model_server(says("hello", tokens=(1_000_000, 0), model="gpt-4o-mini")) as server:
        monkeypatch.setenv("OPENAI_API_KEY", "x")
        monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
        hold(run, "openai-chat:gpt-4o-mini")
    assert run.told(RouteSelected)[0].context_window == 128_000
    assert [event.usd for event in run.told(CostUpdate)] == pytest.approx([0.15])


def test_a_conversation_is_recalled_from_transcripts_of_runs_that_went_on_with_one_another(tmp_path: Path) -> None:
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    told: dict[str, list[Event]] = {
        first: [
            RunStarted(task="one", agent="m"),
            Custom(name="agent_session", data={"id": first, "can_load": True, "from": None}),
            Message(role="assistant", text="I will "),
            Message(role="assistant", text="look."),
            ToolUseProposed(id="c", name="list", args={"path": "."}, risk="ReadOnly"),
            ToolOutput(id="c", blocks=[Block(text="a.txt")], is_error=False),
            ToolUseProposed(id="d", name="shell", args={"command": "sleep 9"}, risk="Exec"),
        ],
        second: [
            RunStarted(task="two", agent="m"),
            Custom(name="agent_session", data={"id": second, "can_load": True, "from": first}),
            Message(role="user", text="and this"),
            Message(role="assistant", text="done"),
        ],
    }
    for run, events in told.items():
        (tmp_path / run).mkdir()
        for seq, event in enumerate(events, 1):
            event.run, event.seq, event.ts = run, seq, "2026-01-01T00:00:00.000000Z"
        (tmp_path / run / "events.jsonl").write_bytes(b"".join(encode(event) + b"\n" for event in events))
    recalled = recall(tmp_path, second)
    assert [[type(part).__name__ for part in message.parts] for message in recalled] == [
        ["UserPromptPart"],
        ["TextPart", "TextPart", "ToolCallPart"],
        ["ToolReturnPart"],
        ["ToolCallPart"],
        ["ToolReturnPart", "UserPromptPart", "UserPromptPart"],
        ["TextPart"],
    ]
    assert recalled[4].parts[0].content == "(given up)"  # type: ignore[union-attr]
    with pytest.raises(LookupError, match="cannot be read"):
        recall(tmp_path, "../../etc")
    with pytest.raises(LookupError, match="nothing to go on with"):
        recall(tmp_path, str(uuid.uuid4()))
