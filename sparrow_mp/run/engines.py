"""Finding an engine by its name."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

from sparrow_mp.wire import RunSpec

GROUP = "sparrow.engines"
"""The entry-point group in which installed packages offer engines."""

BUILT_IN = {
    "command": "sparrow_mp.engines.command:CommandEngine",
    "shell": "sparrow_mp.engines.shell:ShellEngine",
    "python": "sparrow_mp.engines.python:PythonEngine",
    "acp": "sparrow_mp.engines.acp:AcpEngine",
    "model": "sparrow_mp.engines.model:ModelEngine",
    "agent": "sparrow_mp.engines.agent:AgentEngine",
}
"""Ours by name, so that the usual case reads no package's metadata."""

PRELOADED = {
    "agent": (
        "sparrow_mp.engines.agent_loop",
        "sparrow_mp.engines.agent_recall",
        "sparrow_mp.engines.agent_mcp",
        "pydantic_ai.models.openai",
        "pydantic_ai.providers.openai_compatible",
    ),
}
"""What takes long to import, by the engine that imports it: a zygote that has it loaded is made when such a run first comes."""


def plain_command(spec: RunSpec) -> list[str] | None:
    """What the two engines that run just that execute; None for any other, which decides for itself in the run's process."""
    if spec.engine == "command":
        return spec.argv or []
    if spec.engine == "shell":
        return ["/bin/sh", "-c", spec.task]
    return None


class EngineMissing(Exception):
    """There is no engine of that name, or it cannot be imported; the message says which and why."""


def engine_names() -> set[str]:
    """Every engine that is installed here. Reads metadata, imports nothing."""
    return set(BUILT_IN) | {entry.name for entry in importlib.metadata.entry_points(group=GROUP)}


def load_engine(name: str) -> Any:
    """The engine itself. Raises EngineMissing."""
    value = BUILT_IN.get(name)
    if value is None:
        found = importlib.metadata.entry_points(group=GROUP, name=name)
        if not found:
            raise EngineMissing(f"no engine `{name}`; there are {', '.join(sorted(engine_names()))}")
        value = next(iter(found)).value
    module, _, attribute = value.partition(":")
    try:
        engine = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # a foreign package may raise anything while it is imported
        raise EngineMissing(f"engine `{name}` cannot be loaded: {type(error).__name__}: {error}") from error
    return engine() if name in BUILT_IN else engine
