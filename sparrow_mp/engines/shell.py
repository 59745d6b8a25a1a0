"""Engine ``shell``: the task is a line for ``/bin/sh``."""

from __future__ import annotations

from sparrow_mp.run.context import RunContext


class ShellEngine:
    """Runs the task with ``/bin/sh -c``. Its standard input is a pipe; an injected message is one line in it."""

    def command(self, run: RunContext) -> list[str]:
        """What to execute."""
        return ["/bin/sh", "-c", run.task]
