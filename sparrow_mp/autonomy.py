"""How much an agent may do without asking: one table, and the paths that are out of bounds. Pure.

A risk is said by whoever offers the tool; for a command `command_risk.py` guesses it from its words.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Literal, NamedTuple

from sparrow_mp.events import Autonomy, Decision, Risk

Ruling = Literal["Allow", "AskUser", "Deny"]

_ASKS: dict[Risk, Ruling] = {
    "ReadOnly": "Allow", "Mutating": "AskUser", "Exec": "AskUser", "Network": "AskUser", "Destructive": "Deny",
}  # fmt: skip
_TRUSTS: dict[Risk, Ruling] = {
    "ReadOnly": "Allow", "Mutating": "Allow", "Exec": "Allow", "Network": "Allow", "Destructive": "AskUser",
}  # fmt: skip
TABLE: dict[Autonomy, dict[Risk, Ruling]] = {"supervised": _ASKS, "trusted": _TRUSTS, "autonomous": _TRUSTS}
"""What a tool of that risk may do at that level. An autonomous run is one that nobody need watch: what it asks for is denied
when nobody has answered in time, as everywhere."""

OUT_OF_BOUNDS = (
    ".git", ".ssh", ".gnupg", ".aws", ".env", ".env.*", ".netrc", ".pypirc", ".pgpass", ".git-credentials",
    "*.pem", "*.key", "*.p12", "*.pfx", "*.keystore", "id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*",
)  # fmt: skip
"""Names that no tool touches, as a file or as a folder on the way to one; in small letters, matched in any."""
HARMLESS = (".env.example", ".env.sample", ".env.template", ".env.dist", "id_*.pub")


class Verdict(NamedTuple):
    """What the policy says, and why where it says no."""

    ruling: Ruling
    reason: str = ""


def judge(level: Autonomy, risk: Risk, paths: Iterable[str] = (), workspace: str = "/") -> Verdict:
    """What a tool of this risk may do with these paths (absolute and without `..`) in this workspace (likewise)."""
    for path in paths:
        reason = forbidden(path, workspace)
        if reason:
            return Verdict("Deny", reason)
    ruling = TABLE[level][risk]
    return Verdict(ruling, f"a {level} run may do nothing destructive" if ruling == "Deny" else "")


def forbidden(path: str, workspace: str) -> str:
    """Why no tool may touch the path, whatever the level; empty where one may."""
    inside = os.path.relpath(path, workspace)
    parts = inside.split(os.sep)
    if parts[0] == "..":
        return f"{path} is outside of the workspace {workspace}"
    for part in parts:
        name = part.casefold()
        if _matches(name, OUT_OF_BOUNDS) and not _matches(name, HARMLESS):
            return f"{path} is out of bounds ({part})"
    return ""


def remembered(risk: Risk | None, decision: Decision) -> bool:
    """Whether such a decision holds for the next one like it. What is destructive is asked for every time."""
    return decision in ("AllowSession", "AllowAlways") and risk != "Destructive"


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
