"""`sparrow prune`: delete the transcripts of runs that ended long ago."""

from __future__ import annotations

import time

import click

from sparrow_mp.cli.common import example, json_option, places
from sparrow_mp.cli.output import out, out_json
from sparrow_mp.cli.record import read_inputs, records
from sparrow_mp.cli.rm import delete
from sparrow_mp.cli.values import DURATION
from sparrow_mp.cli.words import age, one_line, plural, short, size
from sparrow_mp.retention import Kept, outlived


@click.command(epilog=example("sparrow prune --older-than 30d", "sparrow prune --older-than 12h --dry-run"))
@click.option(
    "--older-than",
    type=DURATION,
    required=True,
    metavar="TIME",
    help="Only runs that ended longer ago than this: 30d, 12h.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
@json_option
def command(older_than: float, dry_run: bool, as_json: bool) -> None:
    """Delete the transcripts of runs that ended longer ago than this. Runs that have not ended are left alone."""
    where = places()
    ended = {record.run: record for record in records(where) if record.ended}
    kept = (Kept(run, record.ended_at.timestamp()) for run, record in ended.items())
    old = [ended[one.run] for one in outlived(kept, time.time(), max_age=older_than)]
    freed = sum(record.bytes for record in old)
    if as_json or dry_run:
        for record in old:
            when = record.ended_at
            task = str(read_inputs(record.folder).get("task", ""))
            if as_json:
                out_json({"run": record.run, "ended": when.isoformat(), "bytes": record.bytes, "task": task})
            else:
                out(f"{short(record.run)}  {age(when.isoformat()):>4}  {size(record.bytes):>7}  {one_line(task, 60)}")
    if not dry_run:
        delete(old, where)
    if not as_json:
        verb = "would delete" if dry_run else "deleted"
        out(f"{verb} {plural(len(old), 'transcript')}, {size(freed)}")
