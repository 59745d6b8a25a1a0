"""Puts the command line together: verbs that are imported when they are used, and how every fault is told."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence

import click

from sparrow_mp._version import __version__
from sparrow_mp.cli.common import example
from sparrow_mp.cli.output import drop_output, say
from sparrow_mp.errors import SparrowError

VERBS = {
    "run": "Run a task or a command and follow it.",
    "ps": "The runs: status, engine, age, CPU, memory.",
    "logs": "The transcript of a run.",
    "events": "The live NDJSON stream of all runs.",
    "attach": "Follow a run and talk to it.",
    "resume": "Go on with the session of an agent's run that has ended.",
    "inject": "Hand a running run a message (also: redirect).",
    "kill": "Interrupt runs; what does not end is killed.",
    "wait": "Wait until runs end.",
    "approve": "Allow what a run asks for.",
    "deny": "Refuse what a run asks for.",
    "allowed": "What was allowed for always, and taking it back.",
    "replay": "Show a transcript at its own pace.",
    "schedule": "Jobs: runs by the clock, or when files change.",
    "agents": "The coding agents that are installed here.",
    "model": "A local model, for agents and other programs.",
    "rm": "Delete the transcripts of ended runs.",
    "prune": "Delete the transcripts of runs that ended long ago.",
    "status": "The supervisor: address, uptime, runs.",
    "metrics": "Figures for Prometheus.",
    "doctor": "Check the installation, with remedies.",
    "supervisor": "Be the supervisor, in the foreground.",
    "shutdown": "Interrupt every run and end the supervisor.",
    "service": "The units of your systemd: install, uninstall, status.",
    "config": "The settings and where each comes from.",
    "reload": "Have the supervisor read its settings again.",
    "completion": "The script for completion in your shell.",
}
"""Every verb and its line in the listing, here so that `sparrow --help` imports none of them."""

ALIASES = {"redirect": "inject"}
_COMPLETE = "_SPARROW_COMPLETE"


class Verbs(click.Group):
    """The group of all verbs. A verb NAME is the command `command` of the module `sparrow_mp.cli.NAME`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All verbs, in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the verb's module."""
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in VERBS:
            return None
        command = importlib.import_module(f"sparrow_mp.cli.{name}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, with the nearest verb in the message."""
        name = args[0]
        if name not in VERBS and name not in ALIASES and not name.startswith("-"):
            import difflib

            near = difflib.get_close_matches(name, [*VERBS, *ALIASES], n=1)
            ctx.fail(f"There is no command `{name}`{f'; did you mean `{near[0]}`?' if near else '.'}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The listing, from the table."""
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


@click.group(
    cls=Verbs,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=example(
        "sparrow run make test", "sparrow run -d --name tests -- pytest -x", "sparrow ps", "sparrow logs -f tests"
    )
    + "\n\nA run is named by its id, any unambiguous beginning of it, or its --name.",
)
@click.version_option(__version__, prog_name="sparrow", message="%(prog)s %(version)s")
@click.option("--config", metavar="FILE", help="The configuration file (also SPARROW_CONFIG).")
def cli(config: str | None) -> None:
    """Runs tasks, commands and agents in processes of their own, and records every event of them."""


def run_cli(args: Sequence[str] | None = None) -> int:
    """Run one command line and say its exit code. Every fault becomes one sentence."""
    try:
        if os.environ.get(_COMPLETE):
            return _complete()
        return _invoke(list(sys.argv[1:] if args is None else args))
    except BrokenPipeError:
        drop_output()
        return 0  # whoever read has read enough
    except KeyboardInterrupt:
        return 130


def _invoke(args: list[str]) -> int:
    try:
        with cli.make_context("sparrow", args) as context:
            code = cli.invoke(context)
            return code if isinstance(code, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.UsageError as error:
        _show_usage_error(error)
        return 2
    except click.ClickException as error:
        say(error.format_message())
        return error.exit_code
    except click.Abort:
        return 130
    except SparrowError as error:
        say(error.message)
        return error.exit_code
    except BrokenPipeError:
        raise
    except OSError as error:
        if os.environ.get("SPARROW_DEBUG"):
            raise
        where = f"{error.filename}: " if error.filename else ""
        say(f"{where}{error.strerror or error}")
        return 1
    except Exception as error:  # the last resort: nobody should have to read a traceback who did not ask for one
        if os.environ.get("SPARROW_DEBUG"):
            raise
        say(
            f"this is a bug in sparrow, please report it ({type(error).__name__}: {error});"
            " with SPARROW_DEBUG=1 it shows where"
        )
        return 1


def _show_usage_error(error: click.UsageError) -> None:
    command = error.ctx.command_path if error.ctx is not None else "sparrow"
    say(f"{error.format_message()} (see {command} --help)")


def _complete() -> int:
    from click.shell_completion import shell_complete

    return shell_complete(cli, {}, "sparrow", _COMPLETE, os.environ[_COMPLETE])
