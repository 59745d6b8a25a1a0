"""`sparrow schedule`: jobs, which fire by the clock or when files change."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from sparrow_mp.cli.common import connect, connect_running, example, json_option, no_start_option, places
from sparrow_mp.cli.complete import complete_jobs
from sparrow_mp.cli.output import Line, Span, coloured, on_terminal, out, out_json, paint, say, status_style
from sparrow_mp.cli.run import RunCommand, Words, build_request
from sparrow_mp.cli.run import command as run_command
from sparrow_mp.cli.table import table
from sparrow_mp.cli.values import parse_env
from sparrow_mp.cli.words import age, clean, duration, one_line, seconds_since, short
from sparrow_mp.paths import supervisor_alive

if TYPE_CHECKING:
    from sparrow_mp.wire import JobRow, Request

HEADERS = ("JOB", "WHEN", "NEXT", "LAST", "ENDED", "TASK")
_TASK = 5
_TASK_IN_PIPE = 60
_NOT_OF_A_JOB = frozenset({"words", "detach", "as_json", "no_start"})
_LOOK_S = 0.2

job_argument = click.argument("job", metavar="JOB", shell_complete=complete_jobs)


@click.group(
    epilog=example(
        'sparrow schedule add nightly --cron "0 3 * * 1-5" make test',
        'sparrow schedule add tests --watch "src/**/*.py" -- pytest -x',
        "sparrow schedule list",
        "sparrow schedule fire nightly",
    )
    + "\n\nThe jobs are in jobs.toml in the state folder, where they can be edited by hand as well."
)
def command() -> None:
    """Have runs begin by the clock, or when files change."""


@command.command(cls=RunCommand, epilog=example(
    'sparrow schedule add nightly --cron "0 3 * * 1-5" --timezone Europe/Paris make test',
    'sparrow schedule add tests --watch "src/**/*.py" --overlap queue -- pytest -x',
    "sparrow schedule add backup --cron @daily --missed once --timeout 2h -- ./backup.sh",
))  # fmt: skip
@click.argument("job", metavar="JOB")
@click.argument("words", nargs=-1, metavar="TASK… | -- ARGV…", type=click.UNPROCESSED)
@click.option("--cron", metavar="LINE", help="Five fields (minute hour day month weekday), or @hourly, @daily, …")
@click.option("--timezone", metavar="ZONE", help="The zone of --cron, such as Europe/Paris (default: the machine's).")
@click.option("--watch", multiple=True, metavar="PATTERN", help="Fire when such files below --cwd change. Repeatable.")
@click.option(
    "--missed",
    type=click.Choice(["skip", "once"]),
    help="A moment that was missed: forget it (default), or make up for one.",
)
@click.option(
    "--overlap",
    type=click.Choice(["skip", "queue", "replace", "allow"]),
    help="While its last run goes on: do not fire (default), wait, end that one, or run both.",
)
@click.option("--replace", is_flag=True, help="There may be a job of this name: this one takes its place.")
@json_option
def add(job: str, words: tuple[str, ...], replace: bool, as_json: bool, **options: Any) -> None:
    """Add a job. It runs in the folder that you are in, or --cwd, with the supervisor's environment and --env."""
    from sparrow_mp import wire
    from sparrow_mp.jobs_file import add_job

    body = _body(words, options)
    request = wire.decode_request(wire.encode({"op": "schedule.add", "job": job, "replace": replace, **body}))
    assert isinstance(request, wire.Request)
    _change(request, lambda: add_job(places(), job, body, replace=replace))
    (row,) = [row for row in _rows() if row.job == job]
    if as_json:
        out_json(row)
        return
    following = f"fires next {_moment(row.next)}" if row.next else "fires when files change"
    say(
        f"job {job} {following}{'' if supervisor_alive(places()) else '; but no supervisor is running: it fires while one does'}"
    )


add.params[:0] = [param for param in run_command.params if param.name not in _NOT_OF_A_JOB]


@command.command("list", epilog=example("sparrow schedule list", "sparrow schedule list --json | jq -r .next"))
@json_option
def list_command(as_json: bool) -> None:
    """Show the jobs: when each fires next, its last run and how that ended, and why it did not fire. Needs no supervisor."""
    rows = _rows()
    if as_json:
        for row in rows:
            out_json(row)
        return
    width = os.get_terminal_size(sys.stdout.fileno()).columns if on_terminal(sys.stdout) else None
    for line in job_lines(rows, width=width, colour=coloured(sys.stdout)):
        out(line)
    if rows and not supervisor_alive(places()):
        say("no supervisor is running: no job fires until one does (sparrow supervisor)")


@command.command(epilog=example("sparrow schedule rm nightly"))
@job_argument
def rm(job: str) -> None:
    """Remove a job. A run of it that goes on is left alone."""
    from sparrow_mp import wire
    from sparrow_mp.jobs_file import remove_job

    _change(wire.ScheduleRemove(job=job), lambda: remove_job(places(), job))


@command.command(epilog=example("sparrow schedule pause nightly"))
@job_argument
def pause(job: str) -> None:
    """Have a job fire no more until it is resumed."""
    from sparrow_mp import wire
    from sparrow_mp.jobs_file import pause_job

    _change(wire.SchedulePause(job=job), lambda: pause_job(places(), job, True))


@command.command(epilog=example("sparrow schedule resume nightly"))
@job_argument
def resume(job: str) -> None:
    """Have a paused job fire again. What it missed meanwhile is forgotten."""
    from sparrow_mp import wire
    from sparrow_mp.jobs_file import pause_job

    _change(wire.ScheduleResume(job=job), lambda: pause_job(places(), job, False))


@command.command(epilog=example("sparrow schedule fire nightly", "sparrow schedule fire -f nightly"))
@job_argument
@click.option("-f", "--follow", "following", is_flag=True, help="Follow the run, and exit as it does.")
@json_option
@no_start_option
def fire(job: str, following: bool, as_json: bool, no_start: bool) -> int:
    """Have a job fire now, also while it is paused, and print the id of its run."""
    from sparrow_mp import wire

    with connect(no_start=no_start) as client:
        told = client.request(wire.ScheduleFire(job=job, id=str(uuid.uuid4())))
        run, waits = str(told["run"]), bool(told.get("waits"))
        if waits:
            say(f"run {short(run)} waits until the last run of {job} has ended")
        if following:
            from sparrow_mp.cli.follow import follow

            _await(client, job, run)
            return follow(client, run, as_json=as_json)
        if as_json:
            out_json({"run": run, "job": job, "waits": waits})
        else:
            out(run)
    return 0


def _await(client: Any, job: str, run: str) -> None:
    """Return once there is the run. Raises SparrowError where it is not to come any more."""
    from sparrow_mp import wire
    from sparrow_mp.errors import NoSuchRun, SparrowError

    while True:
        rows = {row["job"]: row for row in client.request(wire.ScheduleList())["jobs"]}
        try:
            client.get(run)
            return
        except NoSuchRun:
            if rows.get(job, {}).get("waiting") != run:
                raise SparrowError(f"run {short(run)} of {job} does not begin: {_why_not(rows.get(job))}") from None
            time.sleep(_LOOK_S)  # it waits for another one to end, which may be hours


def _why_not(row: dict[str, Any] | None) -> str:
    return (
        "the job is gone" if row is None else str((row.get("not_fired") or {}).get("reason", "its firing was dropped"))
    )


def _change(request: Request, alone: Callable[[], object]) -> None:
    """Have the supervisor change the jobs; where there is none, do it here."""
    from sparrow_mp.errors import NoSupervisor

    if supervisor_alive(places()):
        try:
            with connect_running() as client:
                client.request(request)
            return
        except NoSupervisor:
            pass  # it has ended meanwhile
    from sparrow_mp.paths import secure_folder

    secure_folder(places().state)
    alone()


def _body(words: tuple[str, ...], options: dict[str, Any]) -> dict[str, Any]:
    """What is to stand in jobs.toml: only what was said, and the folder."""
    own = {key: options.pop(key) for key in ("cron", "timezone", "missed", "overlap", "watch")}
    if not own["cron"] and not own["watch"]:
        raise click.UsageError('Say when it fires: --cron "0 3 * * *", --watch "src/**/*.py", or both.')
    request = build_request(words, click.get_current_context().find_object(Words) or Words(), options)
    env = {item.partition("=")[0] for item in options["env"]}
    request["env"] = {name: value for name, value in parse_env(options["env"], os.environ).items() if name in env}
    if request["stdin"] == "pipe":
        del request["stdin"]
    own["watch"] = list(own["watch"])
    return {key: value for key, value in {**request, **own}.items() if value not in (None, "", [], {})}


def _rows() -> list[JobRow]:
    """Every job as the files tell it; where jobs.toml makes no sense that is said, and these are the last good ones."""
    import msgspec

    from sparrow_mp.job_memory import read_memory
    from sparrow_mp.job_rows import row_of
    from sparrow_mp.jobs_file import load_jobs

    loaded = load_jobs(places())
    if loaded.fault:
        say(f"{loaded.fault}{'; the jobs as they were before stay in force' if loaded.jobs else ''}")
    try:
        remembered = read_memory(places().schedules)
    except (OSError, msgspec.DecodeError) as error:
        say(f"{places().schedules} cannot be read: {error}")
        remembered = None
    memories = remembered.jobs if remembered is not None else {}
    now = time.time()
    return [row_of(job, memories.get(job.name), now, _status) for job in loaded.jobs.values()]


def _status(run: str) -> str | None:
    """How a run is, or ended, as its files tell it."""
    import msgspec

    from sparrow_mp.transcript import META

    try:
        meta = msgspec.json.decode((places().transcript(run) / META).read_bytes())
        return str(meta["outcome"]["status"])
    except FileNotFoundError:
        folder = places().run_folder(run)
        if not folder.exists():
            return None
        return "queued" if (folder / "spec.json").exists() else "running"
    except (OSError, msgspec.DecodeError, KeyError, TypeError):
        return None


def job_lines(rows: list[JobRow], *, width: int | None, colour: bool) -> list[str]:
    """The jobs as lines, and below the table why one did not fire."""
    cells = [_cells(row, None if width else _TASK_IN_PIPE) for row in rows]
    lines = table(HEADERS, cells, elastic=_TASK, width=width, colour=colour)
    for row in rows:
        if row.waiting:
            note: Line = [(f"{row.job}: ", "bold"), (f"a firing waits, and becomes run {short(row.waiting)}", "yellow")]
            lines.append(paint(note, colour))
        if row.not_fired is not None and row.not_fired.at > (row.last_fired or ""):
            why = clean(f"did not fire {_moment(row.not_fired.due)}: {row.not_fired.reason}")
            lines.append(paint([(f"{row.job}: ", "bold"), (why, "yellow")], colour))
    return lines


def _cells(row: JobRow, cut: int | None) -> list[Span]:
    when = [row.cron + (f" {row.timezone}" if row.timezone else "")] if row.cron else []
    when += [", ".join(row.watch)] if row.watch else []
    last = f"{age(row.last_fired)} ago {short(row.last_run)}" if row.last_fired and row.last_run else "-"
    following = "paused" if row.paused else _in(row.next)
    return [
        (row.job, "bold"),
        (one_line(" · ".join(when), 40), ""),
        (following, "yellow" if row.paused else ""),
        (last, "" if row.last_run else "dim"),
        (row.last_status or "-", status_style(row.last_status or "")),
        (one_line(row.task, cut), ""),
    ]


def _in(moment: str | None) -> str:
    """How long until then, and when that is here."""
    seconds = seconds_since(moment) if moment else None
    return "-" if seconds is None or moment is None else f"{_moment(moment)} (in {duration(max(0.0, -seconds))})"


def _moment(moment: str | None) -> str:
    """A moment as it is here."""
    return "-" if moment is None else datetime.fromisoformat(moment).astimezone().strftime("%a %Y-%m-%d %H:%M:%S")
