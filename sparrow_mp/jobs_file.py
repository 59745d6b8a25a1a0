"""The file jobs.toml: read, and edited so that everything in it that is not meant stays as it is, comments included."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sparrow_mp.errors import NoSuchJob, StateError
from sparrow_mp.jobs import Job, JobsError, parse_job, parse_jobs
from sparrow_mp.paths import Places
from sparrow_mp.regular import read_regular, write_regular

if TYPE_CHECKING:
    from tomlkit.items import Table

_MOST_BYTES = 1 << 20
_HEAD = "# The jobs of sparrow: `sparrow schedule --help` edits them, and so can you. A change is in force at once.\n"


class Loaded(NamedTuple):
    """The jobs that hold, as ``text`` has them. ``fault`` says what is wrong with jobs.toml where it is not that text."""

    jobs: dict[str, Job]
    text: str = ""
    fault: str = ""


def load_jobs(places: Places) -> Loaded:
    """The jobs of jobs.toml, or the last good ones where something is wrong with it."""
    try:
        return _load(places.jobs)
    except JobsError as error:
        fault = error.message
    try:
        return _load(places.good_jobs)._replace(fault=fault)
    except JobsError:
        return Loaded({}, fault=fault)


def _load(path: Path) -> Loaded:
    text = read_text(path)
    return Loaded(parse_jobs(text, str(path)), text)


def read_text(path: Path) -> str:
    """What the file says; empty where there is none. Raises JobsError."""
    try:
        return read_regular(path.resolve(), _MOST_BYTES).decode()
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise JobsError(f"cannot read {path}: {reason}") from None


def keep_good(places: Places, text: str) -> None:
    """Keep these jobs for the day on which jobs.toml makes no sense. Raises OSError."""
    try:
        kept = read_regular(places.good_jobs, _MOST_BYTES)
    except OSError:
        kept = None
    if kept != text.encode():
        write_regular(places.good_jobs, text.encode())


def add_job(places: Places, name: str, body: Mapping[str, Any], *, replace: bool = False) -> Job:
    """Write a job down. Raises JobsError where it is none, or is there already; StateError where it cannot be written."""
    job = parse_job(name, dict(body))

    def edit(jobs: Table) -> None:
        if name in jobs and not replace:
            raise JobsError(f"there is a job `{name}` already; give this one another name, or say --replace")
        if name in jobs:
            _renew(jobs[name], body)
        else:
            jobs[name] = _table(body)

    _edit(places, edit)
    return job


def remove_job(places: Places, name: str) -> None:
    """Take a job out. Raises NoSuchJob, JobsError, StateError."""

    def edit(jobs: Table) -> None:
        _existing(jobs, name)
        del jobs[name]

    _edit(places, edit)


def pause_job(places: Places, name: str, paused: bool) -> None:
    """Have a job fire no more, or again. Raises NoSuchJob, JobsError, StateError."""

    def edit(jobs: Table) -> None:
        job = _existing(jobs, name)
        if paused:
            job["paused"] = True
        else:
            job.pop("paused", None)

    _edit(places, edit)


def no_such_job(name: str, known: list[str]) -> NoSuchJob:
    """The error for a job that there is not, with the nearest one that there is."""
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    some = f"; did you mean `{near[0]}`?" if near else f"; there are {', '.join(sorted(known))}" if known else ""
    return NoSuchJob(f"no job `{name}`{some}")


def _existing(jobs: Table, name: str) -> Any:
    if name not in jobs:
        raise no_such_job(name, list(jobs))
    return jobs[name]


def _edit(places: Places, change: Callable[[Table], None]) -> None:
    """Change the file as a whole or not at all, one change after another; a bad one is left to whoever made it so."""
    path = places.jobs.resolve()
    try:
        fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # the folder, since the file is replaced
            _edit_locked(places, path, change)
        finally:
            os.close(fd)
    except OSError as error:
        raise StateError(f"cannot write {places.jobs}: {error.strerror}") from None


def _edit_locked(places: Places, path: Path, change: Callable[[Table], None]) -> None:
    """Raises OSError where it cannot be written."""
    import tomlkit
    from tomlkit.exceptions import TOMLKitError
    from tomlkit.items import Table as TableItem

    text = read_text(places.jobs)
    parse_jobs(text, str(places.jobs))
    document = tomlkit.parse(text or _HEAD)
    if "jobs" not in document:
        document["jobs"] = tomlkit.table(is_super_table=True)
    jobs: Any = document["jobs"]
    if not isinstance(jobs, TableItem) and not hasattr(jobs, "keys"):
        raise JobsError(f"{places.jobs}: `jobs` is a table")
    try:
        change(jobs)
        new = tomlkit.dumps(document)
        parse_jobs(new, str(places.jobs))
    except (
        ValueError,
        TOMLKitError,
    ) as error:  # jobs in inline tables or under dotted keys: valid, and not to be added to
        raise JobsError(
            f"{places.jobs} is written in a way that cannot be edited from here ({error}); edit it by hand, or give each job"
            " a table of its own: [jobs.NAME]"
        ) from None
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o600
    write_regular(path, new.encode(), mode)


def _table(body: Mapping[str, Any]) -> Table:
    import tomlkit

    table = tomlkit.table()
    for key, value in body.items():
        table[key] = value
    table.add(tomlkit.nl())
    return table


def _renew(job: Any, body: Mapping[str, Any]) -> None:
    """The new values in the old place, with the comments that were there."""
    for key in [key for key in job if key not in body]:
        del job[key]
    for key, value in body.items():
        if key not in job or job[key] != value:
            job[key] = value
