"""Engine ``command``: a program with its arguments, as it is."""

from __future__ import annotations

from sparrow_mp.run.context import RunContext


class CommandEngine:
    """Runs ``argv``. Its standard input is a pipe; an injected message is one line in it."""

    def command(self, run: RunContext) -> list[str]:
        """What to execute."""
        return run.argv or []
