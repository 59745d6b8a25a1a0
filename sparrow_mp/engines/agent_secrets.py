"""Keys: where they are found, and how they are kept out of what is recorded and out of what an agent starts. Pure but for `key_of`."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from sparrow_mp.events import Event

KEYRING_SERVICE = "sparrow"
_MODEL_KEY = re.compile(r"API_?KEY", re.IGNORECASE)
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)
_SHORTEST = 8
"""A shorter value is no key, and may be in any text."""


def key_of(variable: str, env: Mapping[str, str]) -> str | None:
    """The key of that name: in the environment, else in the keyring where the package `keyring` is installed."""
    found = env.get(variable)
    if found:
        return found
    try:
        keyring: Any = importlib.import_module("keyring")
    except ImportError:
        return None
    try:
        stored = keyring.get_password(KEYRING_SERVICE, variable)
    except Exception:  # a keyring may be locked, or have no backend, in as many ways as there are backends
        return None
    return stored if isinstance(stored, str) and stored else None


def without_keys(env: Mapping[str, str], named: Iterable[str] = ()) -> dict[str, str]:
    """The environment for what an agent starts: less the keys of models, which no command of its needs."""
    known = set(named)
    return {name: value for name, value in env.items() if name not in known and not _MODEL_KEY.search(name)}


class Redactor:
    """Takes secrets out of texts: the values of variables whose names say so, and those that are added."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._names: dict[str, str] = {}
        self._pattern: re.Pattern[str] | None = None
        for name, value in env.items():
            if _SECRET.search(name):
                self.add(name, value)

    def add(self, name: str, value: str) -> None:
        """Know one more. What is too short to be told from other text, or is a path, is none."""
        if len(value) < _SHORTEST or value.startswith(("/", "~", "./")):
            return
        self._names[value] = name
        longest_first = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def text(self, text: str) -> str:
        """The text with the name of each secret in its place."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: f"[{self._names[found[0]]}]", text)

    def value(self, value: Any) -> Any:
        """The same in every text of a JSON value."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.value(key): self.value(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.value(inner) for inner in value]
        return value

    def event(self, event: Event) -> Event:
        """The same in every text of an event."""
        told = {name: getattr(event, name) for name in event.__struct_fields__}
        changed = {name: new for name, old in told.items() if (new := self.value(old)) != old}
        return msgspec.structs.replace(event, **changed) if changed else event
