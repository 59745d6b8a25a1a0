"""What jobs.toml says: the jobs, checked, each fault with its line. It opens no file but those of the time zones."""

from __future__ import annotations

import difflib
import os
import re
import tomllib
import zoneinfo
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from functools import cache
from pathlib import PurePosixPath
from typing import Any, Literal, get_args

import msgspec

from sparrow_mp import wire
from sparrow_mp.cron import Cron, CronError
from sparrow_mp.errors import BadRequest

Missed = Literal["skip", "once"]
Overlap = Literal["skip", "queue", "replace", "allow"]

OWN_KEYS = ("cron", "timezone", "missed", "overlap", "watch", "paused")
"""The keys of a job that are about when it fires; all others are those of ``submit``."""

_NOT_A_JOBS = ("id",)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_LOCALTIME = "/etc/localtime"


class JobsError(BadRequest):
    """Something in jobs.toml is wrong; the message says where."""


@dataclass(frozen=True)
class Job:
    """One job. ``submit`` is what each of its runs is asked to be, less the id; ``env`` in it is added to the supervisor's."""

    name: str
    submit: wire.Submit
    cron: Cron | None = None
    timezone: str | None = None
    missed: Missed = "skip"
    overlap: Overlap = "skip"
    watch: tuple[str, ...] = ()
    paused: bool = False
    rule: str = field(default="")
    """The cron line and its zone: where they change, what was missed before is forgotten."""


def parse_jobs(text: str, where: str) -> dict[str, Job]:
    """All jobs of a file. Raises JobsError, which names ``where``, the line, the job and the key."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise JobsError(f"{where}: {_told(str(error), text)}") from None
    except (RecursionError, ValueError):  # tomllib lets them out for what is nested or long beyond reason
        raise JobsError(
            f"{where}: not TOML that can be read: it is nested too deeply, or has a number too long"
        ) from None
    for key in table:
        if key != "jobs":
            raise JobsError(f"{where}{_line_of(text, None, key)}: unknown key `{key}`; a job is a table [jobs.NAME]")
    jobs = table.get("jobs", {})
    if not isinstance(jobs, dict):
        raise JobsError(f"{where}{_line_of(text, None, 'jobs')}: `jobs` is a table; write a job as [jobs.NAME]")
    found: dict[str, Job] = {}
    for name, body in jobs.items():
        try:
            found[name] = parse_job(name, body)
        except _KeyFault as fault:
            raise JobsError(f"{where}{_line_of(text, name, fault.key)}: {fault.message}") from None
    return found


class _KeyFault(JobsError):
    """A fault of one job, with the key that it is about, where it is about one."""

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


def parse_job(name: str, body: Any) -> Job:
    """One job from its table. Raises JobsError."""
    if not _NAME.fullmatch(name):
        raise _KeyFault(
            f"the job's name {name!r} will not do: use up to 64 letters, digits, _ and -, and begin with a letter or digit"
        )
    if not isinstance(body, dict):
        raise _KeyFault(f"job `{name}`: a job is a table; write it as [jobs.{name}]")
    known = [*OWN_KEYS, *(found.name for found in msgspec.structs.fields(wire.Submit) if found.name not in _NOT_A_JOBS)]
    for key in body:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean `{near[0]}`?" if near else f"the known ones are {', '.join(known)}"
            raise _KeyFault(f"job `{name}`: unknown key `{key}`; {hint}", key)
    submit = _submission(name, {key: value for key, value in body.items() if key not in OWN_KEYS})
    zone_name = _one_of(name, body, "timezone", str)
    cron = _cron(name, body, zone_name)
    watch = _patterns(name, body)
    if cron is None and not watch:
        raise _KeyFault(f"job `{name}` never fires: give it `cron`, `watch` or both")
    paused = body.get("paused", False)
    if not isinstance(paused, bool):
        raise _KeyFault(f"job `{name}`: `paused` is true or false", "paused")
    return Job(
        name=name,
        submit=submit,
        cron=cron,
        timezone=zone_name,
        missed=_choice(name, body, "missed", get_args(Missed)),
        overlap=_choice(name, body, "overlap", get_args(Overlap)),
        watch=watch,
        paused=paused,
        rule=f"{cron.line}|{zone_name or ''}" if cron is not None else "",
    )


def _submission(name: str, body: Mapping[str, Any]) -> wire.Submit:
    try:
        asked = msgspec.convert(body, wire.Submit)
    except msgspec.ValidationError as error:
        words, _, place = str(error).partition(" - at `$.")
        key = re.split(r"[`.\[]", place)[0] or None
        raise _KeyFault(f"job `{name}`: {f'`{key}`: ' if key else ''}{words}", key) from None
    if asked.argv is None and not asked.task.strip():
        raise _KeyFault(f'job `{name}` has no task; say what it is to do: task = "…"', "task")
    if asked.argv is not None and not (asked.argv and asked.argv[0]):
        raise _KeyFault(f"job `{name}`: `argv` is empty; give a program and its arguments", "argv")
    if asked.cwd is not None:
        asked.cwd = os.path.expanduser(asked.cwd)
        if not os.path.isabs(asked.cwd):
            raise _KeyFault(
                f"job `{name}`: the folder `{asked.cwd}` is not absolute; give its whole path, or ~/…", "cwd"
            )
    asked.name = asked.name or name
    return asked


def _one_of(name: str, body: Mapping[str, Any], key: str, kind: type) -> Any:
    value = body.get(key)
    if value is not None and not isinstance(value, kind):
        raise _KeyFault(f"job `{name}`: `{key}` is a text", key)
    return value


def _choice(name: str, body: Mapping[str, Any], key: str, choices: tuple[Any, ...]) -> Any:
    value = body.get(key, choices[0])
    if value not in choices:
        raise _KeyFault(f"job `{name}`: `{key}` is `{value}`; it is one of {', '.join(choices)}", key)
    return value


def _cron(name: str, body: Mapping[str, Any], zone_name: str | None) -> Cron | None:
    line = _one_of(name, body, "cron", str)
    try:
        zone = find_zone(zone_name)
    except ValueError as error:
        raise _KeyFault(f"job `{name}`: {error}", "timezone") from None
    if line is None:
        return None
    try:
        return Cron(line, zone)
    except CronError as error:
        raise _KeyFault(f"job `{name}`: {error}", "cron") from None


def _patterns(name: str, body: Mapping[str, Any]) -> tuple[str, ...]:
    given = body.get("watch", [])
    if isinstance(given, str):
        given = [given]
    if not isinstance(given, list) or not all(isinstance(pattern, str) and pattern for pattern in given):
        raise _KeyFault(f'job `{name}`: `watch` is a list of patterns, such as ["src/**/*.py"]', "watch")
    for pattern in given:
        if pattern.startswith(("/", "~")) or ".." in PurePosixPath(pattern).parts:
            raise _KeyFault(
                f"job `{name}`: the pattern `{pattern}` leads out of the job's folder; patterns are relative to `cwd`",
                "watch",
            )
    return tuple(given)


def find_zone(name: str | None) -> tzinfo:
    """The time zone of this name; the machine's where none is given. Raises ValueError, with the nearest name."""
    if name is None:
        return _machines_zone()
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        near = difflib.get_close_matches(name, _zones(), n=1)
        hint = f"did you mean `{near[0]}`?" if near else "write it such as `Europe/Paris` or `UTC`"
        raise ValueError(f"unknown timezone `{name}`; {hint}") from None


@cache
def _zones() -> frozenset[str]:
    """Every zone that there is; finding them means walking through folders."""
    return frozenset(zoneinfo.available_timezones())


def _machines_zone() -> tzinfo:
    """As the C library finds it: TZ, then /etc/localtime, then UTC."""
    name = os.environ.get("TZ", "").removeprefix(":")
    if not name:
        name = os.path.realpath(_LOCALTIME).partition("/zoneinfo/")[2]
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        pass
    try:
        with open(_LOCALTIME, "rb") as file:
            return zoneinfo.ZoneInfo.from_file(file)
    except (OSError, ValueError):
        return UTC


def _told(fault: str, text: str) -> str:
    """tomllib's words, with the line first, as editors and compilers have it."""
    twice = re.search(r"Cannot declare \('jobs', '([^']*)'\) twice", fault)
    line = re.search(r" \(at line (\d+), column \d+\)", fault)
    words = f"there is a job `{twice[1]}` already; give this one another name" if twice else fault
    number = line[1] if line is not None else len(text.splitlines())
    words = words.replace(line[0] if line is not None else " (at end of document)", "")
    return f"line {number}: {words if twice else f'not TOML: {words}'}"


def _line_of(text: str, job: str | None, key: str | None) -> str:
    """``: line 7`` of a key of a job, else of the job's own heading, as well as it can be found."""
    heading = re.compile(r"\s*\[\s*(?:\"?jobs\"?)\s*\.\s*[\"']?" + re.escape(job or "") + r"[\"']?\s*[\].]")
    assignment = re.compile(r"\s*\[*[\"']?" + re.escape(key or job or "") + r"[\"']?\s*[=.\]]")
    at_heading = None
    for number, line in enumerate(text.splitlines(), 1):
        if job is not None and line.lstrip().startswith("["):
            if heading.match(line):
                at_heading = at_heading or number
            elif at_heading is not None and key is not None:
                break
        if (job is None or (at_heading is not None and number > at_heading and key is not None)) and assignment.match(
            line
        ):
            return f": line {number}"
    return f": line {at_heading}" if at_heading is not None else ""
