"""The tutorial's commands print what it says they do."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.house import House
from tests.support.stress import Figure

pytestmark = pytest.mark.stress

TOP = Path(__file__).parents[2]
_MARK = "=== command"
_TUTORIAL_S = 180.0


@dataclass
class Step:
    """One command of a console block, and the lines that it is to print; `…` stands for anything."""

    number: int
    command: str
    expected: list[str] = field(default_factory=list)


def steps_of(document: str) -> list[Step]:
    """The commands of all ```console blocks, in their order. `$ ` begins one, `> ` (or `>`) goes on with it."""
    steps: list[Step] = []
    inside = False
    for number, line in enumerate(document.splitlines(), 1):
        if line.startswith("```"):
            inside = line == "```console"
        elif not inside:
            continue
        elif line.startswith("$ "):
            steps.append(Step(number, line[2:]))
        elif re.match(r">( |$)", line) and not steps[-1].expected:
            steps[-1].command += "\n" + line[2:]
        else:
            steps[-1].expected.append(line)
    return steps


def pattern_of(expected: list[str]) -> str:
    """A regular expression for the output: `…` is anything within a line, and any lines where it stands alone."""
    pattern = ""
    for line in expected:
        if line == "…":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*".join(re.escape(part) for part in line.split("…")) + r" *\n"
    return pattern


def test_the_tutorials_commands_print_what_it_says(house: House, figure: Figure):
    steps = steps_of((TOP / "docs/tutorial.md").read_text())
    assert len(steps) > 30
    # One shell for all of it, as a reader has; its input is empty, so that no run takes the next command for its own.
    script = "".join(f"printf '{_MARK} {step.number}\\n'\n{step.command}\n" for step in steps)
    path = house.write("tutorial.sh", script)
    faults = []
    with open(house.top / "tutorial.out", "w+b") as printing:
        try:
            subprocess.run(
                ["bash", str(path)],
                env=house.env,
                cwd=house.work,
                stdin=subprocess.DEVNULL,
                stdout=printing,
                stderr=subprocess.STDOUT,
                timeout=_TUTORIAL_S,
                start_new_session=True,
            )
        except subprocess.TimeoutExpired:
            faults.append(f"it was not through after {_TUTORIAL_S:g} s")
        printing.seek(0)
        said = printing.read().decode()
    printed = dict(re.findall(rf"^{_MARK} (\d+)\n(.*?)(?=^{_MARK} |\Z)", said, re.DOTALL | re.MULTILINE))
    for step in steps:
        out = printed.get(str(step.number), "(it did not run)")
        if not re.fullmatch(pattern_of(step.expected), out):
            wanted = "\n".join(step.expected)
            faults.append(f"line {step.number}: {step.command}\n--- the tutorial says\n{wanted}\n--- it printed\n{out}")
    assert not faults, "\n\n".join(faults)
    figure(f"the tutorial: {len(steps)} commands print what it says")
