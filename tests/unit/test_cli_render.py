"""Every event as lines for people."""

import json
import time

import pytest

from sparrow_mp import events as ev
from sparrow_mp.cli.output import SGR, paint
from sparrow_mp.cli.render import render_event, safe_output
from sparrow_mp.cli.screen import FollowView, RecordView

PATCH = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-old\n+new\n"
RUN = "1b0c8a2e-0000-4000-8000-000000000000"
OUTCOME = ev.Outcome(
    status="crashed", cost_usd=0.5, tokens=ev.Tokens(input=10, output=2), duration_ms=1500, signal=9, forced=True,
    diffs=[ev.DiffStat(file="x", plus=1, minus=2)], result={"a": 1},
    usage=ev.Usage(cpu_user_s=1, cpu_system_s=0.5, max_rss_bytes=1 << 20),
)  # fmt: skip

EXAMPLES = [
    (ev.RunStarted(task="make test", agent="coder"), "started make test (coder)"),
    (ev.RunQueued(task="t", agent="", position=3), "queued at place 3: t"),
    (ev.RouteSelected(chain=["a", "b"], context_window=8000), "route a → b (context of 8,000 tokens)"),
    (ev.ModelSwitched(from_="a", to="b", reason="cost"), "model a → b (cost)"),
    (ev.ThinkingDelta(text="hm"), "hm"),
    (ev.ReasoningDelta(text="hm"), "hm"),
    (ev.Message(role="assistant", text="one\ntwo"), "assistant: one\ntwo"),
    (ev.ToolUseProposed(id="1", name="bash", args={"cmd": "ls"}, risk="Exec"), 'tool bash {"cmd":"ls"} [Exec]'),
    (
        ev.ApprovalRequested(id="7", summary="delete x", tool="rm", risk="Destructive"),
        "approval needed: delete x (rm, Destructive)",
    ),
    (
        ev.ApprovalRequested(id="7", summary="delete x", tool="rm", risk="Destructive", refused=True),
        "refused: delete x (rm, Destructive)",
    ),
    (ev.ApprovalResolved(id="7", decision="Deny"), "approval 7: Deny"),
    (ev.ToolUseStarted(id="1"), "tool 1 started"),
    (ev.ToolOutput(id="1", blocks=[ev.Block(text="a\nb\n"), ev.Block(json=None)], is_error=False), "  a\n  b\n  null"),
    (
        ev.ToolOutput(id="1", blocks=[ev.Block(image=ev.Image(data=[1, 2], mime="image/png"))], is_error=False),
        "  [image/png, 2 B]",
    ),
    (ev.ToolOutput(id="1", blocks=[], is_error=True), "  (the tool failed and said nothing)"),
    (ev.ToolOutput(id="1", blocks=[ev.Block(diff=ev.Patch(file="x", patch="+new"))], is_error=False), "  x\n  +new"),
    (
        ev.DiffProposed(file="x", patch=PATCH, plus=1, minus=1),
        "diff x +1 −1\n  --- a/x\n  +++ b/x\n  @@ -1 +1 @@\n  -old\n  +new",
    ),
    (ev.DiffApplied(file="x"), "changed x"),
    (ev.TestResult(passed=3, failed=1, detail="test_a"), "tests: 3 passed, 1 failed\n  test_a"),
    (ev.AgentSpawned(role="coder", model="m"), "agent coder (m)"),
    (ev.AgentStatus(role="coder", status="Working", note="x"), "agent coder Working: x"),
    (ev.CheckpointCreated(id="c1", label="before"), "checkpoint c1 before"),
    (ev.SkillLearned(name="s"), "learned s"),
    (ev.CostUpdate(usd=0.0123), "cost $0.0123"),
    (ev.TokenUsage(input=1200, output=3), "1,200 tokens in, 3 out"),
    (ev.TokenUsageEstimated(input=1, output=2, reason="none told"), "about 1 tokens in, 2 out (none told)"),
    (ev.AutonomyChanged(level="trusted"), "autonomy trusted"),
    (
        ev.Compacted(before_chars=1000, after_chars=10, handoff_path="h"),
        "context compacted from 1,000 to 10 characters, the rest is in h",
    ),
    (ev.Error(message="interrupted: enough"), "error: interrupted: enough"),
    (
        ev.RunFinished(outcome=OUTCOME),
        (
            "crashed: signal 9 (SIGKILL), killed · after 1.5 s · $0.5000 · 10 tokens in, 2 out"
            ' · 1 file changed (+1 −2) · CPU 1.5 s, 1.0 M\nresult: {"a":1}'
        ),
    ),
    (ev.Output(stream="stdout", text="hello"), "hello"),
    (ev.Progress(done=3, total=12, unit="files", note="x.py"), "progress 3/12 files, x.py"),
    (ev.Custom(name="mine", data=[1]), "mine [1]"),
    (ev.Custom(name="acp_session", data={"id": "s1", "can_load": True}), "session s1"),
    (ev.Unknown(type="New", fields={"type": "New", "run": RUN, "seq": 1, "ts": "t", "x": 1}), 'New {"x":1}'),
]


@pytest.mark.parametrize(
    ("event", "expected"), EXAMPLES, ids=lambda value: ev.type_name(value) if not isinstance(value, str) else ""
)
def test_every_event_as_plain_text(event, expected):
    assert "\n".join(paint(line, False) for line in render_event(event)) == expected


@pytest.mark.parametrize(("event", "expected"), EXAMPLES)
def test_a_field_that_a_later_version_added_changes_nothing(event, expected):
    if isinstance(event, ev.Event):
        changed = ev.decode(json.dumps({**json.loads(ev.encode(event)), "later": 1}))
        assert render_event(changed) == render_event(event)


def test_no_type_is_forgotten():
    assert {type(event).__name__ for event, _ in EXAMPLES} == {*ev.EVENT_TYPES, "Unknown"}


@pytest.mark.parametrize(
    ("event", "expected"), EXAMPLES, ids=lambda value: ev.type_name(value) if not isinstance(value, str) else ""
)
def test_every_style_is_known(event, expected):
    for line in render_event(event):
        assert all(style == "" or style in SGR for _, style in line)


def test_an_approval_says_how_to_answer():
    _, line = render_event(ev.ApprovalRequested(RUN, 1, "", id="7", summary="x"))
    assert "sparrow approve 1b0c8a2e 7" in paint(line, False)


def test_nobody_is_told_to_answer_what_policy_refuses():
    (line,) = render_event(ev.ApprovalRequested(RUN, 1, "", id="7", summary="x", refused=True))
    assert paint(line, False) == "refused: x"


@pytest.mark.parametrize(
    ("event", "expected"), EXAMPLES, ids=lambda value: ev.type_name(value) if not isinstance(value, str) else ""
)
def test_no_field_can_steer_the_terminal(event, expected):
    """Every text in the event is spoilt; nothing of it may come out as it is."""

    def spoil(value):
        if isinstance(value, str):
            return f"{value}\x1b[2J\x07"
        if isinstance(value, dict):
            return {key: spoil(item) if key not in fixed else item for key, item in value.items()}
        return [spoil(item) for item in value] if isinstance(value, list) else value

    fixed = {"type", "risk", "decision", "level", "stream", "run", "ts"} | (
        {"status"} if isinstance(event, ev.AgentStatus) else set()
    )
    fields = json.loads(ev.encode(event))
    spoilt = ev.decode(json.dumps(spoil(fields)))
    text = "\n".join(paint(line, False) for line in render_event(spoilt))
    assert "\x1b" not in text
    assert "\x07" not in text


def test_output_keeps_its_colours_only():
    assert safe_output("\x1b[31mred\x1b[0m") == "\x1b[31mred\x1b[0m\x1b[0m"
    assert safe_output("a\x1b[2Jb\x1b]0;t\x07\r") == "a\\x1b[2Jb\\x1b]0;t\\x07"


def follow(capsys, *events, **options):
    view = FollowView(**options)
    for event in events:
        view.show(event)
    view.close()
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_following_passes_output_on(capsys):
    out, err = follow(
        capsys,
        ev.RunStarted(task="t", agent=""),
        ev.Output(stream="stdout", text="hello"),
        ev.Output(stream="stderr", text="oops"),
        ev.Progress(done=1),
        ev.RunFinished(outcome=ev.Outcome(status="completed")),
    )
    assert (out, err) == ("hello\n", "oops\n")


def test_following_joins_parts(capsys):
    out, _ = follow(
        capsys,
        ev.Output(stream="stdout", text="name", partial=True),
        ev.Output(stream="stdout", text="? "),
        ev.Output(stream="stdout", text="more", partial=True),
        ev.Message(role="assistant", text="hi"),
        ev.ThinkingDelta(text="a "),
        ev.ThinkingDelta(text="b"),
        ev.Message(role="user", text="piped in, not said"),
        ev.Output(stream="stdout", text="end", partial=True),
    )
    assert out == "name? \nmore\nassistant: hi\na b\nend\n"


def record(*events):
    view = RecordView()
    return "".join(view.text(event) for event in events)


def test_a_record_shows_times_days_and_streams(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    text = record(
        ev.RunStarted(RUN, 1, "2026-11-22T23:59:59.000001Z", task="t", agent=""),
        ev.Output(RUN, 2, "2026-11-22T23:59:59.100001Z", stream="stdout", text="one "),
        ev.Output(RUN, 3, "2026-11-23T00:00:01.000001Z", stream="stderr", text="par", partial=True),
        ev.Output(RUN, 4, "2026-11-23T00:00:01.000001Z", stream="stderr", text="ts"),
        ev.Message(RUN, 5, "2026-11-23T00:00:02.000001Z", role="assistant", text="a\nb"),
    )
    assert text == (
        "── 2026-11-22 ──\n23:59:59  started t\n23:59:59  one \n── 2026-11-23 ──\n00:00:01! parts\n"
        "00:00:02  assistant: a\n          b\n"
    )


def test_a_record_without_times():
    assert record(ev.Message(role="assistant", text="a"), ev.Error(message="b")) == "  assistant: a\n  error: b\n"
