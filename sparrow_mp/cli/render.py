"""What people see of a run: every event as readable lines, styled, with whatever steers a terminal made visible."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from sparrow_mp import events as ev
from sparrow_mp.cli.output import Line, status_style
from sparrow_mp.cli.words import clean, duration, ending, money, number, plural, size

RISK_STYLES = {
    "ReadOnly": "green",
    "Mutating": "yellow",
    "Exec": "magenta",
    "Destructive": "bold red",
    "Network": "blue",
}

_JSON_LIMIT = 400
_COLOURS_ONLY = re.compile(r"(\x1b\[[0-9;:]*m)")


def render_event(event: ev.AnyEvent) -> list[Line]:
    """The event as lines for people. Whatever control characters it has are made visible; `Output` keeps its colours."""
    if isinstance(event, ev.Unknown):
        return [[(f"{clean(event.type, keep='')} ", "dim"), (compact(_own_fields(event.fields)), "")]]
    return _RENDER[ev.EVENT_TYPES[ev.type_name(event)]](event)


def safe_output(text: str) -> str:
    """A line that a run wrote, with its colours and without anything else that steers a terminal."""
    if text.isprintable():
        return text
    parts = _COLOURS_ONLY.split(text.removesuffix("\r"))
    kept = [part if n % 2 else clean(part, keep="\t") for n, part in enumerate(parts)]
    return "".join(kept) + ("\x1b[0m" if len(parts) > 1 else "")


def compact(value: Any, limit: int = _JSON_LIMIT) -> str:
    """The value as one line of JSON, cut where it is long."""
    text = clean(msgspec.json.encode(value).decode("utf-8", "replace"), keep="")
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def summary(outcome: ev.Outcome) -> str:
    """How a run ended, in one line."""
    words = [f"{ending(outcome.status, outcome.exit_code, outcome.signal, outcome.reason)}"]
    if outcome.forced:
        words[0] += ", killed"
    words.append(f"after {duration(outcome.duration_ms / 1000)}")
    if outcome.cost_usd:
        words.append(money(outcome.cost_usd))
    if outcome.tokens.input or outcome.tokens.output:
        words.append(_tokens(outcome.tokens.input, outcome.tokens.output))
    if outcome.diffs:
        plus = sum(diff.plus for diff in outcome.diffs)
        minus = sum(diff.minus for diff in outcome.diffs)
        words.append(f"{plural(len(outcome.diffs), 'file')} changed (+{plus} −{minus})")
    if outcome.usage is not None:
        cpu = outcome.usage.cpu_user_s + outcome.usage.cpu_system_s
        words.append(f"CPU {duration(cpu)}, {size(outcome.usage.max_rss_bytes)}")
    return " · ".join(words)


def _own_fields(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in ("type", "run", "seq", "ts")}


def _labelled(label: str, style: str, text: str) -> list[Line]:
    """The text under a label: beside it, further lines as they are."""
    first, *rest = clean(text).split("\n")
    return [[(f"{label}: ", style), (first, "")], *([(line, "")] for line in rest)]


def _indented(text: str, style: str = "") -> list[Line]:
    return [[(f"  {line}", style)] for line in clean(text).rstrip("\n").split("\n")]


def _patch(patch: str) -> list[Line]:
    """A unified diff in its usual colours."""
    lines: list[Line] = []
    for text in clean(patch).rstrip("\n").split("\n"):
        if text.startswith(("+++", "---")):
            style = "bold"
        elif text.startswith("@@"):
            style = "cyan"
        else:
            style = {"+": "green", "-": "red"}.get(text[:1], "")
        lines.append([(f"  {text}", style)])
    return lines


def _tokens(given: int, made: int) -> str:
    return f"{given:,} tokens in, {made:,} out"


def _name(text: str) -> str:
    return clean(text, keep="")


def _run_queued(e: ev.RunQueued) -> list[Line]:
    return [[("queued ", "yellow"), (f"at place {e.position}: {clean(e.task)}", "")]]


def _run_started(e: ev.RunStarted) -> list[Line]:
    return [[("started ", "green"), (clean(e.task), "bold"), (f" ({_name(e.agent)})" if e.agent else "", "dim")]]


def _run_finished(e: ev.RunFinished) -> list[Line]:
    lines: list[Line] = [[(summary(e.outcome), status_style(e.outcome.status))]]
    if e.outcome.result is not None:
        lines.append([("result: ", "dim"), (compact(e.outcome.result), "")])
    return lines


def _route_selected(e: ev.RouteSelected) -> list[Line]:
    chain = " → ".join(_name(model) for model in e.chain)
    return [[("route ", "dim"), (chain, ""), (f" (context of {e.context_window:,} tokens)", "dim")]]


def _model_switched(e: ev.ModelSwitched) -> list[Line]:
    return [
        [
            ("model ", "dim"),
            (f"{_name(e.from_)} → {_name(e.to)}", ""),
            (f" ({_name(e.reason)})" if e.reason else "", "dim"),
        ]
    ]


def _thinking(e: ev.ThinkingDelta | ev.ReasoningDelta) -> list[Line]:
    return [[(line, "dim")] for line in clean(e.text).split("\n")]


def _message(e: ev.Message) -> list[Line]:
    return _labelled(_name(e.role), "bold cyan" if e.role == "assistant" else "bold", e.text.strip("\n"))


def _tool_proposed(e: ev.ToolUseProposed) -> list[Line]:
    style = RISK_STYLES.get(e.risk, "")
    args = "" if e.args is None else f" {compact(e.args)}"
    return [[("tool ", "dim"), (_name(e.name), style), (args, ""), (f" [{e.risk}]", style)]]


def _approval_requested(e: ev.ApprovalRequested) -> list[Line]:
    about = ", ".join(_name(word) for word in (e.tool, e.risk) if word)
    label = "refused: " if e.refused else "approval needed: "
    head: Line = [(label, "bold red" if e.risk == "Destructive" or e.refused else "bold cyan"), (clean(e.summary), "")]
    head.append((f" ({about})" if about else "", RISK_STYLES.get(e.risk or "", "dim")))
    if not e.run or e.refused:
        return [head]  # nobody can answer
    return [head, [(f"  answer with: sparrow approve {e.run[:8]} {_name(e.id)}, or sparrow deny", "dim")]]


def _approval_resolved(e: ev.ApprovalResolved) -> list[Line]:
    style = "red" if e.decision == "Deny" else "green" if e.decision.startswith("Allow") else "yellow"
    who = _DECIDERS.get(e.by or "", f"by {_name(e.by)}" if e.by else "")
    why = "; ".join(clean(word) for word in (who, e.reason) if word)
    return [[("approval ", "dim"), (_name(e.id), ""), (f": {e.decision}", style), (f" ({why})" if why else "", "dim")]]


_DECIDERS = {"user": "by a person", "policy": "by policy", "timeout": "by the time limit", "run": "by the run"}


def _tool_started(e: ev.ToolUseStarted) -> list[Line]:
    return [[(f"tool {_name(e.id)} started", "dim")]]


def _tool_output(e: ev.ToolOutput) -> list[Line]:
    style = "red" if e.is_error else ""
    lines: list[Line] = []
    for block in e.blocks:
        if isinstance(block.text, str):
            lines += _indented(block.text, style)
        elif isinstance(block.image, ev.Image):
            lines.append([(f"  [{_name(block.image.mime)}, {size(len(block.image.data))}]", "dim")])
        elif isinstance(block.diff, ev.Patch):
            lines += [[(f"  {_name(block.diff.file)}", "bold")], *_patch(block.diff.patch)]
        elif block.json is not msgspec.UNSET:
            lines.append([(f"  {compact(block.json)}", style)])
    return lines or [[("  (the tool failed and said nothing)" if e.is_error else "  (no output)", style or "dim")]]


def _diff_proposed(e: ev.DiffProposed) -> list[Line]:
    head: Line = [("diff ", "dim"), (_name(e.file), "bold"), (f" +{e.plus}", "green"), (f" −{e.minus}", "red")]
    return [head, *_patch(e.patch)] if e.patch else [head]


def _diff_applied(e: ev.DiffApplied) -> list[Line]:
    return [[("changed ", "green"), (_name(e.file), "")]]


def _test_result(e: ev.TestResult) -> list[Line]:
    lines: list[Line] = [[("tests: ", "dim"), (f"{e.passed:,} passed", "green" if e.passed else "")]]
    lines[0].append((f", {e.failed:,} failed", "red" if e.failed else ""))
    return lines + (_indented(e.detail) if e.detail else [])


def _agent_spawned(e: ev.AgentSpawned) -> list[Line]:
    return [[("agent ", "dim"), (_name(e.role), ""), (f" ({_name(e.model)})", "dim")]]


def _agent_status(e: ev.AgentStatus) -> list[Line]:
    style = {"Error": "red", "Done": "green", "WaitingForApproval": "bold cyan"}.get(e.status, "")
    note = f": {clean(e.note)}" if e.note else ""
    return [[("agent ", "dim"), (f"{_name(e.role)} ", ""), (e.status, style), (note, "")]]


def _checkpoint(e: ev.CheckpointCreated) -> list[Line]:
    return [[("checkpoint ", "dim"), (_name(e.id), ""), (f" {_name(e.label)}" if e.label else "", "")]]


def _skill(e: ev.SkillLearned) -> list[Line]:
    return [[("learned ", "dim"), (_name(e.name), "")]]


def _cost(e: ev.CostUpdate) -> list[Line]:
    return [[(f"cost {money(e.usd)}", "dim")]]


def _token_usage(e: ev.TokenUsage) -> list[Line]:
    return [[(_tokens(e.input, e.output), "dim")]]


def _token_estimate(e: ev.TokenUsageEstimated) -> list[Line]:
    return [[(f"about {_tokens(e.input, e.output)} ({_name(e.reason)})", "dim")]]


def _autonomy(e: ev.AutonomyChanged) -> list[Line]:
    return [[("autonomy ", "dim"), (e.level, "yellow" if e.level == "autonomous" else "")]]


def _compacted(e: ev.Compacted) -> list[Line]:
    kept = f", the rest is in {_name(e.handoff_path)}" if e.handoff_path else ""
    return [[(f"context compacted from {e.before_chars:,} to {e.after_chars:,} characters{kept}", "dim")]]


def _error(e: ev.Error) -> list[Line]:
    return _labelled("error", "bold red", e.message)


def _output(e: ev.Output) -> list[Line]:
    return [[(safe_output(e.text), "")]]


def _progress(e: ev.Progress) -> list[Line]:
    return [[("progress ", "dim"), (progress_words(e), "")]]


def _custom(e: ev.Custom) -> list[Line]:
    if e.name.endswith("_session") and isinstance(e.data, dict) and "id" in e.data:
        return [[(f"session {_name(str(e.data['id']))}", "dim")]]
    return [[(f"{_name(e.name)} ", "dim"), (compact(e.data), "")]]


def progress_words(e: ev.Progress) -> str:
    """``3/12 files, reading x.py``."""
    total = f"/{number(e.total)}" if e.total is not None else ""
    unit = f" {_name(e.unit)}" if e.unit else ""
    return f"{number(e.done)}{total}{unit}{f', {_name(e.note)}' if e.note else ''}"


_RENDER: dict[type[ev.Event], Callable[[Any], list[Line]]] = {
    ev.RunQueued: _run_queued,
    ev.RunStarted: _run_started,
    ev.RunFinished: _run_finished,
    ev.RouteSelected: _route_selected,
    ev.ModelSwitched: _model_switched,
    ev.ThinkingDelta: _thinking,
    ev.ReasoningDelta: _thinking,
    ev.Message: _message,
    ev.ToolUseProposed: _tool_proposed,
    ev.ApprovalRequested: _approval_requested,
    ev.ApprovalResolved: _approval_resolved,
    ev.ToolUseStarted: _tool_started,
    ev.ToolOutput: _tool_output,
    ev.DiffProposed: _diff_proposed,
    ev.DiffApplied: _diff_applied,
    ev.TestResult: _test_result,
    ev.AgentSpawned: _agent_spawned,
    ev.AgentStatus: _agent_status,
    ev.CheckpointCreated: _checkpoint,
    ev.SkillLearned: _skill,
    ev.CostUpdate: _cost,
    ev.TokenUsage: _token_usage,
    ev.TokenUsageEstimated: _token_estimate,
    ev.AutonomyChanged: _autonomy,
    ev.Compacted: _compacted,
    ev.Error: _error,
    ev.Output: _output,
    ev.Progress: _progress,
    ev.Custom: _custom,
}
