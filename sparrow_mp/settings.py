"""What can be set: the schema. What a setting means, its unit, its bounds and when a change of it counts are all said here.

``config.py`` reads the values, ``sparrow config`` shows and checks them, and the commented example is made of this.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

import msgspec

from sparrow_mp.events import Autonomy
from sparrow_mp.quantities import parse_duration, parse_size
from sparrow_mp.setting_kinds import (
    AT_START,
    NEW_RUNS,
    NOW,
    Changes,
    Section,
    Unit,
    count,
    number,
    plain,
    seconds,
    size,
)
from sparrow_mp.settings_models import AgentSettings, EndpointSettings, LocalModelSettings, McpSettings, ModelsSettings


class RunSettings(Section, kw_only=True):
    """What a run has where neither its request nor its engine's table below says otherwise."""

    engine: Annotated[str, plain("The engine of a task for which none is named.", NEW_RUNS)] = "shell"
    grace: Annotated[float, seconds("How long a run that is to end may tidy up, before it is killed.", NEW_RUNS)] = 10.0
    outbox_bytes: Annotated[
        int,
        size(
            "How much a run may have emitted that is not recorded yet; past it, its `emit()` waits.",
            NEW_RUNS,
            least=2 << 20,
            most=256 << 20,
        ),
    ] = 8 << 20
    timeout: Annotated[float, seconds("How long a run may take; then it is ended. 0: no limit.", NEW_RUNS)] = 0.0
    memory: Annotated[
        int, size("The memory that a run's processes may use all together; past it they are killed. 0: no limit.", NEW_RUNS)
    ] = 0  # fmt: skip
    budget: Annotated[float, number("What a run may cost; then it is ended. 0: no limit.", NEW_RUNS, Unit.USD)] = 0.0
    max_output: Annotated[int, size("How much a run may print; past it, it is killed. 0: no limit.", NEW_RUNS)] = 0
    max_transcript: Annotated[
        int, size("How much a run's events may take on the disk; past it, it is killed. 0: no limit.", NEW_RUNS)
    ] = 10 << 30
    max_processes: Annotated[
        int, count("How many processes a run may have at once; past it, it is killed. 0: no limit.", NEW_RUNS)
    ] = 5000
    nice: Annotated[
        int, count("How much a run stands back for others: 0 not at all, 19 the most.", NEW_RUNS, most=19)
    ] = 0
    autonomy: Annotated[Autonomy, plain("How much an agent may do without asking.", NEW_RUNS)] = "supervised"
    approval_timeout: Annotated[
        float, seconds("How long a run waits for an approval; then it is denied.", NEW_RUNS, least=0.1)
    ] = 3600.0
    preload: Annotated[
        list[str],
        plain(
            "Modules that take long to import and that runs in Python are to find loaded. Libraries, not what you edit.",
            NEW_RUNS,
        ),
    ] = msgspec.field(default_factory=list)


NOT_FOR_ENGINES = frozenset({"engine", "outbox_bytes"})
"""The keys of [run] that a table [engines.NAME] cannot have."""


class SupervisorSettings(Section, kw_only=True):
    """The supervisor itself, and how much it takes on."""

    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], plain("How much is written into its log.", NOW)
    ] = "info"
    max_runs: Annotated[
        int,
        count(
            "How many runs may be alive at once; further ones are queued. 0: as many as there are descriptors for."
            " Where it is lowered, nothing that runs is ended.",
            NOW,
        ),
    ] = 0
    max_queue: Annotated[int, count("How many runs may be queued; further ones are refused.", NOW)] = 10_000
    submit_rate: Annotated[
        float, number("How many runs a second one client may submit in the long run. 0: no limit.", NOW)
    ] = 100.0
    submit_burst: Annotated[
        int, count("How many runs one client may submit at once, before `submit_rate` counts.", NOW, least=1)
    ] = 1000
    restart: Annotated[bool, plain("Start it again where it crashes in the background.", NOW)] = True
    fsync: Annotated[
        Literal["batch", "always", "never"],
        plain(
            "When transcripts are forced to the disk: within 50 ms (batch), before anything is published (always),"
            " or when the kernel likes to (never).",
            AT_START,
        ),
    ] = "batch"
    part_bytes: Annotated[
        int, size("A transcript's file that has grown to this is sealed, and another begun. 0: never.", NOW)
    ] = 64 << 20


class NdjsonSettings(Section, kw_only=True):
    """The event stream as lines of JSON, for any program that reads them."""

    tcp: Annotated[
        str, plain("HOST:PORT on this machine; port 0 takes a free one. Empty: no TCP. Also SPARROW_TCP.", AT_START)
    ] = "127.0.0.1:9337"
    unix: Annotated[str, plain("The Unix socket's path. Empty: sparrow.sock in the state folder.", AT_START)] = ""
    stall_timeout: Annotated[
        float, seconds("After how long a client that takes nothing at all is closed.", AT_START, least=1.0)
    ] = 600.0


class RetentionSettings(Section, kw_only=True):
    """Which transcripts of ended runs are deleted by themselves, the oldest first. Looked after every ten minutes."""

    max_age_days: Annotated[
        float, number("How long ago a run may have ended. 0: any time.", NOW, Unit.DAYS)
    ] = 0.0  # fmt: skip
    max_bytes: Annotated[int, size("What they may take on the disk, all together. 0: no limit.", NOW)] = 0
    max_runs: Annotated[int, count("How many are kept. 0: all.", NOW)] = 0


class NotifySettings(Section, kw_only=True):
    """A command of your choice that is called once when a run ends or waits for somebody."""

    command: Annotated[
        str,
        plain(
            "A line for `sh`. It has the facts in SPARROW_* and, as JSON, on its standard input. Empty: nothing is called.",
            NOW,
        ),
    ] = ""
    on: Annotated[list[Literal["ended", "waiting"]], plain("What it is called for.", NOW)] = msgspec.field(
        default_factory=lambda: ["ended", "waiting"]
    )
    timeout: Annotated[
        float, seconds("How long it may take; then it is killed, with all that it has started.", NOW, least=0.1)
    ] = 30.0


class Config(Section, kw_only=True):
    """All settings."""

    run: RunSettings = msgspec.field(default_factory=RunSettings)
    engines: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)
    """[engines.NAME]: keys of [run], for runs of that engine."""
    supervisor: SupervisorSettings = msgspec.field(default_factory=SupervisorSettings)
    ndjson: NdjsonSettings = msgspec.field(default_factory=NdjsonSettings)
    retention: RetentionSettings = msgspec.field(default_factory=RetentionSettings)
    notify: NotifySettings = msgspec.field(default_factory=NotifySettings)
    local_model: LocalModelSettings = msgspec.field(default_factory=LocalModelSettings)
    models: ModelsSettings = msgspec.field(default_factory=ModelsSettings)
    endpoints: dict[str, EndpointSettings] = msgspec.field(default_factory=dict)
    """[endpoints.NAME]"""
    agents: dict[str, AgentSettings] = msgspec.field(default_factory=dict)
    """[agents.NAME]"""
    mcp: dict[str, McpSettings] = msgspec.field(default_factory=dict)
    """[mcp.NAME]"""

    def run_for(self, engine: str) -> RunSettings:
        """What a run of this engine has where its request does not say. An engine's table goes before [run]."""
        return msgspec.structs.replace(self.run, **self.engines.get(engine, {}))

    def snapshot(self, engine: str) -> dict[str, Any]:
        """What is recorded of the settings with a run of this engine: `run` is what counts for it.

        The command to call is left out: it is none of the run's business, and may have a secret in it. So may addresses of models
        and the variables of agents and MCP servers.
        """
        told = msgspec.to_builtins(msgspec.structs.replace(self, run=self.run_for(engine)))
        assert isinstance(told, dict)
        return {section: values for section, values in told.items() if section not in _NOT_RECORDED}


_NOT_RECORDED = ("engines", "notify", "models", "endpoints", "agents", "mcp")

NAMED: dict[str, type[Section]] = {"endpoints": EndpointSettings, "agents": AgentSettings, "mcp": McpSettings}
"""The sections with a table for each name, [section.NAME]; what a table does not say has its default."""

SECTIONS: dict[str, type[Section]] = {
    field.name: field.type for field in msgspec.structs.fields(Config) if field.name not in ("engines", *NAMED)
}


@dataclass(frozen=True)
class Setting:
    """One thing that can be set."""

    section: str
    key: str
    type: Any
    default: Any
    description: str
    unit: Unit
    changes: Changes
    least: float | None
    most: float | None

    @property
    def name(self) -> str:
        """``section.key``."""
        return f"{self.section}.{self.key}"

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that it may be, where only some will do."""
        inner = get_args(self.type)[0] if get_origin(self.type) is list else self.type
        return get_args(inner) if get_origin(inner) is Literal else ()

    def read(self, raw: Any, *, text: bool = False) -> Any:
        """The value that is meant; ``text`` says that there is nothing but text where it comes from.

        Raises ValueError, which says what is wrong with it.
        """
        if isinstance(raw, str):
            raw = self._said(raw, text)
        if isinstance(raw, str) and "\0" in raw:
            raise ValueError(f"`{self.name}` has a NUL in it")
        try:
            value = msgspec.convert(raw, self.type, strict=not text)
        except (msgspec.ValidationError, OverflowError) as error:
            raise ValueError(f"`{self.name}`: {error}") from None
        if isinstance(value, int | float) and not isinstance(value, bool):
            self._check_bounds(value)
        return value

    def _said(self, words: str, text: bool) -> Any:
        """What is said with a unit, as a number."""
        try:
            match self.unit:
                case Unit.SECONDS:
                    return parse_duration(words)
                case Unit.BYTES:
                    return parse_size(words)
                case Unit.DAYS:
                    return float(words) if words.replace(".", "", 1).isdecimal() else parse_duration(words) / 86400
        except ValueError as error:
            raise ValueError(f"`{self.name}`: {error}") from None
        if text and get_origin(self.type) is list:
            return [word.strip() for word in words.split(",") if word.strip()]
        return words

    def _check_bounds(self, value: float) -> None:
        if not (-math.inf if self.least is None else self.least) <= value:  # which no comparison with a NaN passes
            raise ValueError(f"`{self.name}` is {value}; the least is {self.least}")
        if self.most is not None and value > self.most:
            raise ValueError(f"`{self.name}` is {value}; the most is {self.most}")


@cache
def settings_of(section: str) -> dict[str, Setting]:
    """The settings of a section by their keys, in the order of the schema; of each of its tables, where it is one of NAMED."""
    kind = SECTIONS.get(section) or NAMED[section]
    return {field.name: _setting(section, field) for field in msgspec.structs.fields(kind)}


@cache
def engine_settings() -> dict[str, Setting]:
    """What a table [engines.NAME] may have."""
    return {key: setting for key, setting in settings_of("run").items() if key not in NOT_FOR_ENGINES}


def _setting(section: str, field: msgspec.structs.FieldInfo) -> Setting:
    kind, meta = get_args(field.type)
    extra = meta.extra
    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return Setting(
        section, field.name, kind, default, meta.description, extra["unit"], extra["changes"], meta.ge, meta.le
    )


__all__ = [
    "NAMED",
    "NOT_FOR_ENGINES",
    "SECTIONS",
    "AgentSettings",
    "Changes",
    "Config",
    "EndpointSettings",
    "LocalModelSettings",
    "McpSettings",
    "ModelsSettings",
    "NdjsonSettings",
    "NotifySettings",
    "RetentionSettings",
    "RunSettings",
    "Section",
    "Setting",
    "SupervisorSettings",
    "Unit",
    "engine_settings",
    "settings_of",
]
