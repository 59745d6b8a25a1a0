"""What the control requests about jobs mean: one method an op."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from sparrow_mp import wire
from sparrow_mp.errors import SparrowError
from sparrow_mp.job_rows import row_of
from sparrow_mp.jobs import OWN_KEYS, parse_job
from sparrow_mp.jobs_file import Loaded, add_job, pause_job, remove_job
from sparrow_supervisor import submit
from sparrow_supervisor.control import Answer

if TYPE_CHECKING:
    from sparrow_supervisor.reactor import Reactor
    from sparrow_supervisor.schedule import Scheduler

_NOT_OF_THE_JOB = frozenset({"op", "job", "replace", "id"})


class ScheduleDesk:
    """Answers them. A change of jobs.toml is made beside the loop, and answered when it is in force."""

    def __init__(self, reactor: Reactor, scheduler: Scheduler) -> None:
        self._reactor = reactor
        self._scheduler = scheduler
        self.ops: dict[type, Callable[[Any, Answer], None]] = {
            wire.ScheduleAdd: self._add,
            wire.ScheduleList: self._list,
            wire.ScheduleRemove: self._remove,
            wire.SchedulePause: partial(self._pause, True),
            wire.ScheduleResume: partial(self._pause, False),
            wire.ScheduleFire: self._fire,
        }

    def _add(self, asked: wire.ScheduleAdd, answer: Answer) -> None:
        body = job_body(asked)
        job = parse_job(asked.job, body)
        reactor = self._reactor
        whole = msgspec.structs.replace(job.submit, env={**os.environ, **(job.submit.env or {})})
        submit.specify(whole, reactor.config, reactor.places, os.environ, reactor.usual)
        self._change(lambda: add_job(reactor.places, asked.job, body, replace=asked.replace), answer)

    def _remove(self, asked: wire.ScheduleRemove, answer: Answer) -> None:
        self._change(lambda: remove_job(self._reactor.places, asked.job), answer)

    def _pause(self, paused: bool, asked: wire.SchedulePause | wire.ScheduleResume, answer: Answer) -> None:
        self._change(lambda: pause_job(self._reactor.places, asked.job, paused), answer)

    def _change(self, edit: Callable[[], object], answer: Answer) -> None:
        def work() -> Loaded:
            edit()
            return self._scheduler.reload()

        def then(loaded: Loaded | Exception) -> None:
            if isinstance(loaded, SparrowError):
                answer(wire.refused(loaded.code, loaded.message))
            elif isinstance(loaded, Exception):
                answer(wire.refused("internal", f"jobs.toml cannot be changed: {loaded}"))
            else:
                try:
                    self._scheduler.take(loaded)
                finally:
                    answer(wire.ok())  # it is in the file, whatever becomes of it

        self._scheduler.aside.do(work, then)

    def _list(self, _: wire.ScheduleList, answer: Answer) -> None:
        now = time.time()
        jobs = self._scheduler.jobs.values()
        answer(wire.ok(jobs=[row_of(job, self._scheduler.memory(job.name), now, self._status) for job in jobs]))

    def _status(self, run: str) -> str | None:
        row = self._reactor.index.row(run)
        return None if row is None else str(row["status"])

    def _fire(self, asked: wire.ScheduleFire, answer: Answer) -> None:
        run = self._scheduler.fire(asked.job, asked.id or str(uuid.uuid4()))
        waits = self._reactor.index.row(run) is None
        answer(wire.ok(run=run, waits=waits))


def job_body(asked: wire.ScheduleAdd) -> dict[str, Any]:
    """What is to stand in jobs.toml: the keys that were given, those about when it fires first."""
    given = {key: value for key, value in msgspec.to_builtins(asked).items() if key not in _NOT_OF_THE_JOB}
    own = {key: given.pop(key) for key in OWN_KEYS if key in given}
    return {**given, **own}
