"""A strict reader of Prometheus' text format, version 0.0.4: whatever is not quite right is an AssertionError."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(,|$)')
_SAMPLE = re.compile(rf"({_NAME})(?:\{{(.+)\}})? (-?[0-9.]+(?:e[-+]?[0-9]+)?)")


@dataclass
class Read:
    """A family: its type, its help, and its values by their labels."""

    kind: str
    help: str
    values: dict[tuple[tuple[str, str], ...], float] = field(default_factory=dict)


def read(text: str) -> dict[str, Read]:
    """Every family. Each has HELP, TYPE and then its values, all together and once."""
    assert text.endswith("\n")
    found: dict[str, Read] = {}
    lines = text.split("\n")[:-1]
    current = ""
    while lines:
        line = lines.pop(0)
        if line.startswith("# HELP "):
            _, _, current, words = line.split(" ", 3)
            assert re.fullmatch(_NAME, current)
            assert current not in found, f"{current} comes twice"
            kind = re.fullmatch(rf"# TYPE {current} (gauge|counter)", lines.pop(0))
            assert kind, f"{current} has no type"
            assert (kind[1] == "counter") == current.endswith("_total")
            found[current] = Read(kind[1], words)
            continue
        sample = _SAMPLE.fullmatch(line)
        assert sample, line
        assert sample[1] == current, f"{line} is not with its family"
        labels = _labels(sample[2] or "")
        assert labels not in found[current].values, f"{line} comes twice"
        found[current].values[labels] = float(sample[3])
    assert all(family.values for family in found.values())
    return found


def _labels(text: str) -> tuple[tuple[str, str], ...]:
    labels: dict[str, str] = {}
    at = 0
    while at < len(text):
        label = _LABEL.match(text, at)
        assert label, text
        assert label[1] not in labels
        labels[label[1]] = re.sub(r"\\(.)", lambda one: "\n" if one[1] == "n" else one[1], label[2])
        at = label.end()
    return tuple(sorted(labels.items()))
