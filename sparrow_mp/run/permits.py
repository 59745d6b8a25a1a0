"""What a run may do without asking: by the policy, or because somebody has allowed the like before.

`AllowSession` holds for that tool at that risk until the run ends. `AllowAlways` holds in that workspace for every run from
then on: it is a line of `allowed.jsonl` in the state folder, and `sparrow allowed --forget` takes it back.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from sparrow_mp.allowed import Allowed, allow, read_allowed
from sparrow_mp.autonomy import Verdict, judge, remembered
from sparrow_mp.events import Autonomy, Decision, Risk


class Permits:
    """The policy of one run, and what has been allowed to it. ``always`` is the file that all runs share."""

    def __init__(self, level: Autonomy, workspace: Path, always: Path | None) -> None:
        self._level: Autonomy = level
        self._workspace = workspace
        self._always = always
        self._session: set[tuple[str, Risk]] = set()

    def rule(self, tool: str, risk: Risk, paths: Iterable[str | Path]) -> tuple[Decision | None, str]:
        """What is decided without asking anybody, and why where it is ``Deny``; None where somebody has to be asked."""
        whole = list(self._whole(paths))
        own = None if self._always is None else os.path.realpath(self._always.parent)
        if own is not None and any(path == own or path.startswith(own + os.sep) for path in whole):
            return "Deny", f"{own} is sparrow's own"
        verdict: Verdict = judge(self._level, risk, whole, os.path.realpath(self._workspace))
        if verdict.ruling != "AskUser":
            return verdict.ruling, verdict.reason
        if remembered(risk, "AllowSession") and (tool, risk) in self._session:
            return "AllowSession", ""
        if remembered(risk, "AllowAlways") and self._entry(tool, risk) in self._allowed():
            return "AllowAlways", ""
        return None, ""

    def settle(self, tool: str, risk: Risk, decision: Decision) -> Decision:
        """Keep a decision that holds for the next ones too. What is neither yes nor no is a no."""
        if remembered(risk, decision):
            self._session.add((tool, risk))
            if decision == "AllowAlways":
                self._keep(self._entry(tool, risk))
        return "Deny" if decision == "AskUser" else decision

    def _whole(self, paths: Iterable[str | Path]) -> Iterator[str]:
        """Each path where it leads to, and, so that no link hides its name, as it is spelled in there."""
        for path in paths:
            spelled = os.path.join(self._workspace, path)
            yield os.path.realpath(spelled)
            folder, name = os.path.split(os.path.normpath(spelled))
            yield os.path.join(os.path.realpath(folder), name)

    def _entry(self, tool: str, risk: Risk) -> Allowed:
        return Allowed(os.path.realpath(self._workspace), tool, risk)

    def _allowed(self) -> set[Allowed]:
        """What the file says now; nothing where it cannot be read."""
        try:
            return read_allowed(self._always) if self._always is not None else set()
        except OSError:
            return set()

    def _keep(self, entry: Allowed) -> None:
        """For every run from now on. Where that cannot be written, it holds for this run alone."""
        if self._always is None or entry in self._allowed():
            return
        try:
            allow(self._always, entry)
        except OSError:
            return
