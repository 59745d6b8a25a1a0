"""Run tasks, commands and agents in processes of their own, and record every event of them.

    from sparrow_mp import Client

    with Client() as sparrow:
        run = sparrow.submit("make test", engine="shell")
        for event in run.events():
            print(event)

Each name is imported when it is first used: ``import sparrow_mp`` costs nothing.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's, without importing typing
if TYPE_CHECKING:
    from sparrow_mp._version import __version__
    from sparrow_mp.aclient import AsyncClient, AsyncRun
    from sparrow_mp.client import Client, Run
    from sparrow_mp.errors import (
        AmbiguousRun,
        BadRequest,
        ConfigError,
        Gone,
        NoSuchEngine,
        NoSuchJob,
        NoSuchRun,
        NoSupervisor,
        NotRunning,
        QueueFull,
        RateLimited,
        ShuttingDown,
        SparrowError,
        StateError,
        TimedOut,
        TooLarge,
    )
    from sparrow_mp.events import (
        AgentSpawned,
        AgentStatus,
        AnyEvent,
        ApprovalRequested,
        ApprovalResolved,
        AutonomyChanged,
        Block,
        CheckpointCreated,
        Compacted,
        CostUpdate,
        Custom,
        DiffApplied,
        DiffProposed,
        DiffStat,
        Error,
        Event,
        EventError,
        Image,
        Message,
        ModelSwitched,
        Outcome,
        Output,
        Patch,
        Progress,
        ReasoningDelta,
        RouteSelected,
        RunFinished,
        RunQueued,
        RunStarted,
        SkillLearned,
        TestResult,
        ThinkingDelta,
        Tokens,
        TokenUsage,
        TokenUsageEstimated,
        ToolOutput,
        ToolUseProposed,
        ToolUseStarted,
        Unknown,
        Usage,
    )
    from sparrow_mp.paths import Places
    from sparrow_mp.run.context import Interrupted, RunContext
    from sparrow_mp.wire import RunRecord

_HOMES = {
    "_version": "__version__",
    "aclient": "AsyncClient AsyncRun",
    "client": "Client Run",
    "errors": (
        "AmbiguousRun BadRequest ConfigError Gone NoSuchEngine NoSuchJob NoSuchRun NoSupervisor NotRunning "
        "QueueFull RateLimited ShuttingDown SparrowError StateError TimedOut TooLarge "
    ),
    "events": (
        "AgentSpawned AgentStatus AnyEvent ApprovalRequested ApprovalResolved AutonomyChanged Block "
        "CheckpointCreated Compacted CostUpdate Custom DiffApplied DiffProposed DiffStat Error Event "
        "EventError Image Message ModelSwitched Outcome Output Patch Progress ReasoningDelta RouteSelected "
        "RunFinished RunQueued RunStarted SkillLearned TestResult ThinkingDelta TokenUsage "
        "TokenUsageEstimated Tokens ToolOutput ToolUseProposed ToolUseStarted Unknown Usage "
    ),
    "paths": "Places",
    "run.context": "Interrupted RunContext",
    "wire": "RunRecord",
}
"""Which module each name lives in."""

_MODULES = {name: module for module, names in _HOMES.items() for name in names.split()}

__all__ = [
    "AgentSpawned",
    "AgentStatus",
    "AmbiguousRun",
    "AnyEvent",
    "ApprovalRequested",
    "ApprovalResolved",
    "AsyncClient",
    "AsyncRun",
    "AutonomyChanged",
    "BadRequest",
    "Block",
    "CheckpointCreated",
    "Client",
    "Compacted",
    "ConfigError",
    "CostUpdate",
    "Custom",
    "DiffApplied",
    "DiffProposed",
    "DiffStat",
    "Error",
    "Event",
    "EventError",
    "Gone",
    "Image",
    "Interrupted",
    "Message",
    "ModelSwitched",
    "NoSuchEngine",
    "NoSuchJob",
    "NoSuchRun",
    "NoSupervisor",
    "NotRunning",
    "Outcome",
    "Output",
    "Patch",
    "Places",
    "Progress",
    "QueueFull",
    "RateLimited",
    "ReasoningDelta",
    "RouteSelected",
    "Run",
    "RunContext",
    "RunFinished",
    "RunQueued",
    "RunRecord",
    "RunStarted",
    "ShuttingDown",
    "SkillLearned",
    "SparrowError",
    "StateError",
    "TestResult",
    "ThinkingDelta",
    "TimedOut",
    "TokenUsage",
    "TokenUsageEstimated",
    "Tokens",
    "TooLarge",
    "ToolOutput",
    "ToolUseProposed",
    "ToolUseStarted",
    "Unknown",
    "Usage",
    "__version__",
]


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
