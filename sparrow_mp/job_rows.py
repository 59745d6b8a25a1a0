"""A job as a row of ``schedule.list`` and of `sparrow schedule list`: what it is, when it fires next, what became of it last."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from datetime import UTC, datetime

from sparrow_mp.job_memory import Memory
from sparrow_mp.jobs import Job
from sparrow_mp.wire import JobRow, NotFiredRow


def row_of(job: Job, memory: Memory | None, now: float, status_of: Callable[[str], str | None]) -> JobRow:
    """The row, at this moment. ``status_of`` says how a run is, or ended; None where that is not known any more."""
    last = memory.last if memory is not None else None
    not_fired = memory.not_fired if memory is not None else None
    following = None if job.paused or job.cron is None else job.cron.after(now)
    return JobRow(
        job=job.name,
        task=job.submit.task or shlex.join(job.submit.argv or ()),
        engine=job.submit.engine,
        cron=job.cron.line if job.cron is not None else None,
        timezone=job.timezone,
        watch=list(job.watch),
        missed=job.missed,
        overlap=job.overlap,
        paused=job.paused,
        next=None if following is None else moment(following),
        last_run=last.run if last is not None else None,
        last_fired=moment(last.at) if last is not None else None,
        last_why=last.why if last is not None else None,
        last_status=status_of(last.run) if last is not None else None,
        waiting=memory.waiting.run if memory is not None and memory.waiting is not None else None,
        not_fired=None
        if not_fired is None
        else NotFiredRow(at=moment(not_fired.at), due=moment(not_fired.due), reason=not_fired.reason),
    )


def moment(seconds: float) -> str:
    """A moment as events bear it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
