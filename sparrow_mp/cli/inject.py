"""`sparrow inject`: hand a running run a message."""

from __future__ import annotations

import sys

import click

from sparrow_mp.cli.common import connect, example, no_start_option
from sparrow_mp.cli.complete import complete_live
from sparrow_mp.errors import BadRequest


@click.command(epilog=example(
    "sparrow inject 1b0c 'use pytest, not unittest'",
    "git diff | sparrow inject 1b0c -",
    "sparrow inject --now 1b0c 'stop, that is the wrong file'",
    "sparrow inject 1b0c --eof",
))  # fmt: skip
@click.argument("run", shell_complete=complete_live)
@click.argument("message", nargs=-1)
@click.option("--eof", is_flag=True, help="End its standard input, after the message where there is one.")
@click.option("--now", is_flag=True, help="Have an agent end its turn first, in place of waiting for that.")
@no_start_option
def command(run: str, message: tuple[str, ...], eof: bool, now: bool, no_start: bool) -> None:
    """Hand a running run a message; `-` reads them from standard input, one a line.

    It returns when the message is recorded; the run then gets it, once. A command gets it as a line on its standard input.
    """
    if now and not message:
        raise click.UsageError("--now is for a MESSAGE.")
    if not message and not eof:
        raise click.UsageError("Say the MESSAGE, or - to read standard input, or --eof.")
    with connect(no_start=no_start) as client:
        # The id once: a name could be another run's by the next line.
        target = client.get(run).run
        if message == ("-",):
            if sys.stdin is None:
                raise BadRequest("there is no standard input to read the messages from")
            for line in sys.stdin.buffer:
                client.inject(target, line.decode("utf-8", "replace").rstrip("\r\n"), now=now)
        elif message:
            client.inject(target, " ".join(message), now=now)
        if eof:
            client.inject(target, eof=True)
