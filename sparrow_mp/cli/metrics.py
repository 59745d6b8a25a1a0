"""`sparrow metrics`: what there is to be measured, as Prometheus text."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from sparrow_mp._version import __version__
from sparrow_mp.cli.common import connect_running, example, json_option
from sparrow_mp.cli.output import say, write
from sparrow_mp.errors import NoSupervisor, StateError

if TYPE_CHECKING:
    from sparrow_mp.wire import RunRecord

_MOST_RUNS = 200
"""Of how many live runs there are figures of their own, the newest: each is a series that the collector has to keep."""
_NO_SUPERVISOR = 69

Labels = tuple[tuple[str, str], ...]


@dataclass
class Family:
    """One metric: its name, `gauge` or `counter`, what it says, and a value for each set of labels."""

    name: str
    kind: str
    help: str
    samples: list[tuple[Labels, float]] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> None:
        """One value."""
        self.samples.append((tuple(labels.items()), value))


@click.command(epilog=example(
    "sparrow metrics",
    "sparrow metrics -o /var/lib/node_exporter/textfile/sparrow.prom",
    "sparrow metrics --json | jq 'select(.name == \"sparrow_runs\")'",
))  # fmt: skip
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write it there, all at once, for a textfile collector. Then a supervisor that is not there is no failure.")  # fmt: skip
@json_option
def command(output: Path | None, as_json: bool) -> int:
    """Print figures of the supervisor and its runs in the text format of Prometheus.

    Starts nothing. Without a supervisor there is only `sparrow_up 0`, and the exit code is 69; with -o it is 0.
    """
    code = 0
    try:
        with connect_running() as client:
            found = families(client.status(), client.list())
    except NoSupervisor as error:
        found = [_up(0)]
        code = 0 if output else _NO_SUPERVISOR
        if not output:
            say(error.message)
    lines = _rows(found) if as_json else _exposition(found)
    if output is not None:
        _replace(output, "".join(lines))
    else:
        write(sys.stdout, "".join(lines))
    return code


def _rows(found: Iterable[Family]) -> Iterator[str]:
    from msgspec.json import encode

    for family in found:
        for labels, value in family.samples:
            row = {"name": family.name, "type": family.kind, "labels": dict(labels), "value": value}
            yield encode(row).decode() + "\n"


def _exposition(found: Iterable[Family]) -> Iterator[str]:
    """The text format, version 0.0.4."""
    for family in found:
        if not family.samples:
            continue
        yield f"# HELP {family.name} {_escape(family.help, quotes=False)}\n# TYPE {family.name} {family.kind}\n"
        for labels, value in family.samples:
            given = ",".join(f'{name}="{_escape(text)}"' for name, text in labels)
            yield f"{family.name}{{{given}}} {value!r}\n" if given else f"{family.name} {value!r}\n"


def _escape(text: str, *, quotes: bool = True) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def families(told: Mapping[str, Any], runs: Iterable[RunRecord]) -> list[Family]:
    """All metrics, from what the supervisor says of itself and of its live runs. Raises StateError where it does not say enough."""
    if "total" not in told:
        raise StateError(
            f"the supervisor is of version {told.get('version')} and counts nothing; restart it, the runs go on: sparrow shutdown"
            " --keep-runs && sparrow ps"
        )
    return [_up(1), *_of_supervisor(told), *_of_totals(told), *_of_processes(told), *_of_runs(list(runs))]


def _up(value: int) -> Family:
    return _one("sparrow_up", "gauge", "Whether a supervisor answers.", value)


def _one(name: str, kind: str, words: str, value: float) -> Family:
    family = Family(name, kind, words)
    family.add(value)
    return family


def _of_supervisor(told: Mapping[str, Any]) -> Iterator[Family]:
    from sparrow_mp.wire import LIVE_STATUSES

    info = Family("sparrow_info", "gauge", "The versions of the supervisor and of this command; always 1.")
    info.add(1, version=str(told.get("version")), command_version=__version__)
    yield info
    began = datetime.fromisoformat(str(told["started"])).timestamp()
    yield _one("sparrow_start_time_seconds", "gauge", "When the supervisor started, in seconds since 1970.", began)
    live = Family("sparrow_runs", "gauge", "The runs in the index by status, live and ended, less those deleted.")
    for status, count in sorted({**dict.fromkeys(LIVE_STATUSES, 0), **told["runs"]}.items()):
        live.add(count, status=status)
    yield live
    yield _one("sparrow_runs_most", "gauge", "How many runs may be alive at once.", told["most_runs"])
    yield _one("sparrow_runs_waiting", "gauge", "Live runs that wait for an approval.", told["waiting"])
    yield _one("sparrow_queue_length", "gauge", "Runs that wait for a place.", told["runs"].get("queued", 0))
    clients = Family("sparrow_clients", "gauge", "NDJSON clients that are connected, by kind.")
    clients.add(told["clients"]["tcp"], kind="tcp")
    clients.add(told["clients"]["unix"], kind="unix")
    yield clients
    behind = "NDJSON clients that have still to get something that is recorded."
    yield _one("sparrow_clients_behind", "gauge", behind, told["clients"]["behind"])
    yield _one("sparrow_notices_waiting", "gauge", "Calls of the command of [notify] that are due.", told["to_tell"])
    late = "How late the supervisor's loop was when it last did what was due, each second."
    yield _one("sparrow_loop_late_seconds", "gauge", late, told["late_s"])
    yield _one("sparrow_problems", "gauge", "Problems that `sparrow status` tells of.", len(told["problems"]))


def _of_totals(told: Mapping[str, Any]) -> Iterator[Family]:
    """Counters: they go on over supervisors, and begin anew only where the index has to be made anew."""
    from sparrow_mp.events import Status

    total = told["total"]
    ended = Family("sparrow_runs_ended_total", "counter", "Runs that have ended, by how; deleted ones too.")
    for status, count in sorted({**dict.fromkeys(get_args(Status), 0), **total["ended"]}.items()):
        ended.add(count, status=status)
    yield ended
    yield _one("sparrow_events_recorded_total", "counter", "Events that were recorded, of all runs.", total["events"])
    size = "Bytes of transcripts that this supervisor has written since it started."
    yield _one("sparrow_recorded_since_start_bytes", "gauge", size, total["bytes_since_start"])
    cost = "What the runs say that they have cost, in US dollars; a run may correct its own."
    yield _one("sparrow_cost_usd", "gauge", cost, total["cost_usd"])
    tokens = Family("sparrow_tokens", "gauge", "What the runs say that they have used; a run may correct its own.")
    tokens.add(total["tokens"]["input"], kind="input")
    tokens.add(total["tokens"]["output"], kind="output")
    yield tokens


def _of_processes(told: Mapping[str, Any]) -> Iterator[Family]:
    memory = Family("sparrow_process_resident_bytes", "gauge", "Memory of our own processes.")
    cpu = Family("sparrow_process_cpu_seconds_total", "counter", "CPU time of our own processes.")
    files = Family("sparrow_process_open_fds", "gauge", "Open descriptors of our own processes.")
    for name, key in (("supervisor", "pid"), ("zygote", "zygote_pid"), ("adapters", "adapters_pid")):
        try:
            place = Path(f"/proc/{int(told[key])}")
            fields = (place / "stat").read_bytes().rpartition(b")")[2].split()
            memory.add(int(fields[21]) * os.sysconf("SC_PAGE_SIZE"), process=name)
            cpu.add((int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), process=name)
            files.add(len(os.listdir(place / "fd")), process=name)
        except (OSError, TypeError, ValueError):
            continue  # there is none just now
    yield from (memory, cpu, files)


def _of_runs(runs: list[RunRecord]) -> Iterator[Family]:
    cpu = Family("sparrow_run_cpu_ratio", "gauge", "CPU of a live run's process tree, of one processor.")
    memory = Family("sparrow_run_resident_bytes", "gauge", "Memory of a live run's process tree.")
    events = Family("sparrow_run_events", "gauge", "Events that a live run has recorded.")
    for run in runs[-_MOST_RUNS:]:
        labels = {"run": run.run, "name": (run.name or "")[:80], "engine": run.engine}
        if run.cpu_percent is not None and run.memory_bytes is not None:
            cpu.add(run.cpu_percent / 100, **labels)
            memory.add(run.memory_bytes, **labels)
        events.add(run.events, **labels)
    yield from (cpu, memory, events)
    untold = "Live runs that have no figures of their own here, since there are so many."
    yield _one("sparrow_runs_left_out", "gauge", untold, max(0, len(runs) - _MOST_RUNS))


def _replace(path: Path, text: str) -> None:
    """Write the file so that whoever reads it finds the old or the new text, whole. Raises OSError."""
    new = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        new.write_text(text, encoding="utf-8", errors="replace")
        new.chmod(0o644)  # the collector is another user
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
