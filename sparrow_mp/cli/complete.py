"""What the shell completes: ids and names of runs, engines. It reads files only, and starts nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from sparrow_mp.cli.common import places

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

_LIMIT = 200


def complete_live(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Runs that have not ended: each has a working folder."""
    return _complete(str(places().runs), incomplete)


def complete_any(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Runs that have a transcript."""
    return _complete(str(places().transcripts), incomplete)


def complete_engines(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Engines that are installed."""
    from click.shell_completion import CompletionItem

    from sparrow_mp.run.engines import engine_names

    return [CompletionItem(name) for name in sorted(engine_names()) if name.startswith(incomplete)]


def _complete(folder: str, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem

    from sparrow_mp.cli.record import read_inputs
    from sparrow_mp.cli.words import one_line

    try:
        ids = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    except OSError:
        return []
    found = []
    for run in ids[-_LIMIT * 5 :]:
        inputs = read_inputs(places().transcript(run))
        name = inputs.get("name")
        about = one_line(str(inputs.get("task", "")), 50)
        if isinstance(name, str) and name and name.startswith(incomplete):
            found.append(CompletionItem(name, help=about))
        if run.startswith(incomplete):
            found.append(CompletionItem(run[:8] if len(incomplete) < 8 else run, help=about))
    return found[:_LIMIT]


def complete_jobs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Jobs that there are."""
    from click.shell_completion import CompletionItem

    from sparrow_mp.jobs_file import load_jobs

    return [CompletionItem(name) for name in sorted(load_jobs(places()).jobs) if name.startswith(incomplete)]
