"""The jobs, done: jobs.toml is read when it changes, the core decides what fires, runs are submitted, and all is remembered."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from sparrow_mp import wire
from sparrow_mp.errors import QueueFull, RateLimited, ShuttingDown, SparrowError, StateError
from sparrow_mp.failpoints import ARMED, reach
from sparrow_mp.job_memory import Firing, Memory, Remembered, read_memory
from sparrow_mp.jobs import Job
from sparrow_mp.jobs_file import Loaded, keep_good, load_jobs, no_such_job
from sparrow_mp.regular import write_regular
from sparrow_supervisor.aside import Aside, Bell
from sparrow_supervisor.core.inputs import About, InterruptAsked
from sparrow_supervisor.core.schedule import Effect, Fire, Interrupt, Rule, Schedule
from sparrow_supervisor.watching import Watched, Watching

if TYPE_CHECKING:
    from sparrow_supervisor.reactor import Reactor

_log = logging.getLogger(__name__)

_BEAT_S = 0.5
"""How often the clock and jobs.toml are looked at: a moment that the clock jumps to, or that comes after the machine has slept,
is noticed within this. Timers alone would not tell: the clock that they go by stands still meanwhile.
"""
_LEAST_WAIT_S = 0.01
_WRITTEN_FOR_S = 0.2
"""A file that was changed less long ago may still be being written."""
_WATCH_AGAIN_BEATS = 20
_PASSES = (QueueFull, RateLimited, StateError)
"""Why a run is refused that would be accepted later."""

Submit = Callable[[wire.Submit, str], str]
_Signature = tuple[int, int, int] | None


class Scheduler:
    """All jobs, with what the reactor has in hand. ``submit(asked, job)`` makes a run, or raises SparrowError."""

    def __init__(self, reactor: Reactor, submit: Submit) -> None:
        self._reactor = reactor
        self._submit = submit
        self._bell = Bell(reactor.loop)
        self.aside = Aside(self._bell)
        self._watching = Watching(self._bell, reactor.places.state, self._changed)
        self._jobs: dict[str, Job] = {}
        self._job_of: dict[str, str] = {}
        self._fault = ""
        self._unwritten = ""
        self._read: _Signature = None
        self._reading = False
        self._gone = False
        self._beats = 0
        self._core = Schedule(self._remembered())

    # ── beginning and end ──

    def begin(self) -> None:
        """Take over from an earlier supervisor, and have the jobs fire from now on."""
        self._read = _signature(self._reactor.places.jobs)
        self.take(_load(self._reactor))
        for row in self._reactor.index.live():
            if row["job"] is not None:
                self._job_of[row["run"]] = row["job"]
                self._core.found(row["job"], row["run"])
        self._beat()

    def close(self) -> None:
        """Fire no more, and remember everything."""
        self._watching.close()
        self.aside.close()
        self._save()
        self._bell.close()

    def _remembered(self) -> Remembered:
        path = self._reactor.places.schedules
        try:
            found = read_memory(path)
        except (OSError, msgspec.DecodeError) as error:
            found = None
            kept = path.with_name(f"{path.name}.damaged")
            _log.error("%s cannot be read (%s): when each job last fired is forgotten; see %s", path, error, kept)
            with suppress(OSError):  # then there is nothing to be kept
                path.replace(kept)
        return found or Remembered(seed=uuid.uuid4().hex)

    # ── the jobs in force ──

    @property
    def jobs(self) -> dict[str, Job]:
        """The jobs in force."""
        return self._jobs

    @property
    def problems(self) -> list[str]:
        """What is not as it should be."""
        kept = "; the jobs as they were before stay in force" if self._fault and self._jobs else ""
        found = [self._fault + kept, self._unwritten]
        found += [f"job `{job}` cannot watch its files: {why}" for job, why in sorted(self._watching.faults.items())]
        return [problem for problem in found if problem]

    def job(self, name: str) -> Job:
        """The job of this name. Raises NoSuchJob."""
        if name not in self._jobs:
            raise no_such_job(name, list(self._jobs))
        return self._jobs[name]

    def memory(self, name: str) -> Memory:
        """What is remembered of a job in force."""
        return self._core.memory(name)

    def take(self, loaded: Loaded) -> None:
        """These jobs are in force from now on."""
        if loaded.fault and loaded.fault != self._fault:
            _log.error("%s; the jobs as they were before stay in force", loaded.fault)
        self._fault = loaded.fault
        if loaded.fault and (self._jobs or not loaded.jobs):
            return  # also at a start: what is remembered of jobs that nobody can read is not forgotten
        if loaded.jobs.keys() != self._jobs.keys():
            _log.info("%d jobs: %s", len(loaded.jobs), ", ".join(sorted(loaded.jobs))[:1000] or "none")
        self._jobs = loaded.jobs
        self._core.change([_rule(job) for job in loaded.jobs.values()], time.time())
        for run, job in self._job_of.items():
            self._core.found(job, run)
        self._watching.watch(
            {
                name: Watched(_folder(job), job.watch)
                for name, job in loaded.jobs.items()
                if job.watch and not job.paused
            }
        )
        self._save()

    def reload(self) -> Loaded:
        """Read jobs.toml. In the thread beside the loop."""
        return _load(self._reactor)

    def _look_at_file(self) -> None:
        """Read jobs.toml where it has changed, and has been at rest since."""
        found = _signature(self._reactor.places.jobs)
        gone_before, self._gone = self._gone, found is None
        if found == self._read or self._reading:
            return
        if found is None and not gone_before:
            return  # some editors move it away and write it anew; with its jobs would go what is remembered of them
        if found is not None and 0 <= time.time() - found[0] / 1e9 < _WRITTEN_FOR_S:
            return
        self._read, self._reading = found, True
        self.aside.do(self.reload, self._reloaded)

    def _reloaded(self, loaded: Loaded | Exception) -> None:
        self._reading = False
        if isinstance(loaded, Exception):
            _log.error("the jobs cannot be read: %s", loaded)
        else:
            self.take(loaded)

    # ── what happens ──

    def _beat(self) -> None:
        """Look at the clock and the file; and again soon, or when the next moment comes, also where one of them fails."""
        wait = _BEAT_S
        try:
            self._beats += 1
            self._look_at_file()
            if self._beats % _WATCH_AGAIN_BEATS == 0:
                self._watching.look_again()
            self.turn()
            due = self._core.next_due
            wait = _BEAT_S if due is None else min(_BEAT_S, max(_LEAST_WAIT_S, due - time.time()))
        finally:
            self._reactor.loop.later(wait, self._beat)

    def turn(self) -> None:
        """Do what is due."""
        if not self._reactor.house.closing:
            self._do(self._core.tick(time.time(), self._ran))

    def fire(self, name: str, run: str) -> str:
        """Have a job fire now; the id of its run, which may have to wait. Raises NoSuchJob, SparrowError."""
        self.job(name)
        waiting = self.memory(name).waiting
        if self._ran(run) or (waiting is not None and waiting.run == run):
            return run  # it was asked before, and the answer did not arrive
        effects = self._core.asked(name, run, time.time())
        if isinstance(effects, str):
            raise SparrowError(effects)
        self._do(effects)
        waiting = self.memory(name).waiting
        if not self._ran(run) and (waiting is None or waiting.run != run):
            not_fired = self.memory(name).not_fired
            raise SparrowError(f"job `{name}` did not fire: {not_fired.reason if not_fired else 'the log says why'}")
        return run

    def ended(self, run: str) -> None:
        """A run has ended: a firing of its job may have waited for that."""
        job = self._job_of.pop(run, None)
        if job is not None:
            self._core.ended(job, run, time.time())
            self._reactor.loop.soon(self.turn)

    def _changed(self, job: str, at: float) -> None:
        if not self._reactor.house.closing:
            self._do(self._core.changed(job, str(uuid.uuid4()), at, time.time()))

    def _ran(self, run: str) -> bool:
        return self._reactor.index.row(run) is not None

    # ── doing ──

    def _do(self, effects: list[Effect]) -> None:
        if effects and ARMED:
            reach("schedule.due")
        self._save()  # what waits, before it is begun
        for effect in effects:
            match effect:
                case Fire(job, firing):
                    self._fire(job, firing)
                case Interrupt(job, run):
                    self._interrupt(run, f'job {job} fires again (overlap = "replace")')
        self._save()
        if effects and ARMED:
            reach("schedule.settled")

    def _fire(self, name: str, firing: Firing) -> None:
        now = time.time()
        job = self._jobs[name]
        asked = msgspec.structs.replace(job.submit, id=firing.run, env=_environment(job))
        if ARMED:
            reach("schedule.firing")
        try:
            self._submit(asked, name)
        except ShuttingDown:
            return  # the next supervisor fires it
        except SparrowError as error:
            if self._told_anew(name, error.message):
                _log.error("job %s does not fire: %s", name, error.message)
            self._core.failed(name, firing, error.message, now, passes=isinstance(error, _PASSES))
            return
        except Exception as error:  # whatever it is, the other jobs fire, and this one is not tried again each moment
            _log.exception("job %s does not fire", name)
            self._core.failed(name, firing, f"the supervisor failed at it ({type(error).__name__})", now, passes=False)
            return
        if ARMED:
            reach("schedule.submitted")
        self._job_of[firing.run] = name
        self._core.fired(name, firing, now)
        if firing.run not in self._reactor.members:  # it was refused by the system, and has ended already
            self.ended(firing.run)
        late = f", {(now - firing.due) * 1000:.0f} ms after its moment" if firing.why == "cron" else ""
        _log.info("job %s: fired (%s) as run %s%s", name, firing.why, firing.run, late)

    def _told_anew(self, name: str, reason: str) -> bool:
        before = self.memory(name).not_fired
        return before is None or not before.reason.startswith(reason)

    def _interrupt(self, run: str, words: str) -> None:
        self._reactor.feed(About(run, InterruptAsked(words, None)))

    def _save(self) -> None:
        """Write down what is to be remembered. Where that fails it is tried again with the next beat."""
        if not self._core.dirty:
            return
        path = self._reactor.places.schedules
        try:
            write_regular(path, wire.encode(self._core.remembered))
            self._reactor.recorder.settle(path, path.parent)
        except OSError as error:
            if not self._unwritten:
                _log.error("%s cannot be written: %s; it is tried again", path, error.strerror)
            self._unwritten = (
                f"{path} cannot be written ({error.strerror}): a crash now may forget when jobs last fired"
            )
            return
        self._unwritten = ""
        self._core.dirty = False


def _load(reactor: Reactor) -> Loaded:
    """The jobs that hold; good ones are kept for the day on which jobs.toml makes no sense."""
    loaded = load_jobs(reactor.places)
    if not loaded.fault:
        try:
            keep_good(reactor.places, loaded.text)
        except OSError as error:
            _log.warning("the jobs cannot be kept for later: %s", error)
    return loaded


def _signature(path: Path) -> _Signature:
    """What tells whether a file has changed: when, its size, which file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _rule(job: Job) -> Rule:
    return Rule(job.name, job.cron, job.missed, job.overlap, job.paused, job.rule)


def _folder(job: Job) -> str:
    """The folder that its patterns are relative to, without links."""
    return os.path.realpath(job.submit.cwd or os.path.expanduser("~"))


def _environment(job: Job) -> dict[str, str] | None:
    """The supervisor's, with what the job adds."""
    return {**os.environ, **job.submit.env} if job.submit.env is not None else None
