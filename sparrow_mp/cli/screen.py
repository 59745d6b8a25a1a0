"""A stream of events as it is shown: what goes to which stream, what continues a line, what is only for a terminal.

Two views share this: `FollowView` (`run`, `attach`), in which a run's output comes out as if no one stood between, and
`RecordView` (`logs`, `replay`), in which every event has its time.
"""

from __future__ import annotations

import sys
import time
from datetime import datetime
from typing import Any

from sparrow_mp import events as ev
from sparrow_mp.cli.output import Line, coloured, on_terminal, paint, status_style, write
from sparrow_mp.cli.render import progress_words, render_event, safe_output, summary

_BAR_COLUMNS = 24
_BAR_INTERVAL = 0.05


class FollowView:
    """A run as it happens.

    What the run writes is passed on byte for byte, control characters included, each stream to its own: it is the
    user's own program, and a shell would do the same. Everything else is made safe.
    """

    def __init__(self, *, injected: bool = True) -> None:
        """``injected``: show what people inject; what was piped in by this very command is not worth repeating."""
        self._colour = coloured(sys.stdout)
        self._people = on_terminal(sys.stdout)
        self._bar = ProgressBar()
        self._injected = injected
        self._unfinished = {"stdout": False, "stderr": False}
        self._thinking = False
        self.last_error = ""
        """The last error that was shown, so that the end of the run need not say it again."""

    def show(self, event: ev.AnyEvent) -> None:
        """Write the event where it belongs."""
        if isinstance(event, ev.Output):
            self._end_thinking()
            self._bar.clear()
            write(
                sys.stdout if event.stream == "stdout" else sys.stderr,
                event.text if event.partial else f"{event.text}\n",
            )
            self._unfinished[event.stream] = event.partial
        elif isinstance(event, ev.Progress):
            self._bar.show(event)
        elif isinstance(event, ev.ThinkingDelta | ev.ReasoningDelta):
            self._think(event.text)
        elif isinstance(event, ev.Error):
            self._complain(event)
        elif not self._is_left_out(event):
            self._write_lines(render_event(event))

    def make_room(self) -> None:
        """End what is unfinished, so that the next line is free; also what leaves the terminal as it was found."""
        self._bar.clear()
        self._end_lines()

    close = make_room

    def _is_left_out(self, event: ev.AnyEvent) -> bool:
        if isinstance(event, ev.RunStarted | ev.RunFinished):
            return True  # who follows a run knows its task; its end is told on standard error
        if isinstance(event, ev.Message) and event.role == "user":
            return not (self._injected and self._people)
        return isinstance(event, ev.RunQueued)

    def _complain(self, event: ev.Error) -> None:
        """Errors are words to the user. That it was interrupted is told at its end, which comes right after."""
        if event.message == "interrupted" or event.message.startswith("interrupted: "):
            return
        self._end_lines()
        self._bar.clear()
        self.last_error = event.message
        write(sys.stderr, "".join(f"{paint(line, coloured(sys.stderr))}\n" for line in render_event(event)))

    def _think(self, text: str) -> None:
        """Thoughts come in fragments: they are joined."""
        if not self._thinking:
            self._end_lines()
        self._bar.clear()
        self._thinking = True
        for n, line in enumerate(render_event(ev.ThinkingDelta(text=text))):
            write(sys.stdout, ("\n" if n else "") + paint(line, self._colour))

    def _write_lines(self, lines: list[Line]) -> None:
        self._end_lines()
        self._bar.clear()
        write(sys.stdout, "".join(paint(line, self._colour) + "\n" for line in lines))

    def _end_thinking(self) -> None:
        if self._thinking:
            write(sys.stdout, "\n")
        self._thinking = False

    def _end_lines(self) -> None:
        self._end_thinking()
        if self._unfinished["stdout"]:
            write(sys.stdout, "\n")
        if self._unfinished["stderr"] and on_terminal(sys.stderr):
            write(sys.stderr, "\n")
        self._unfinished = {"stdout": False, "stderr": False}


class RecordView:
    """A transcript: every event with the time of day, a new day on a line of its own, all on standard output.

    Of progress that is told again and again without a word between, the last is enough; on a terminal it is a bar meanwhile.
    """

    def __init__(self) -> None:
        self._colour = coloured(sys.stdout)
        self._second = ""
        self._clock = ""
        self._day = ""
        self._joining: type[ev.AnyEvent] | str | None = None
        self._progress: ev.Progress | None = None
        self._bar = ProgressBar()

    def show(self, event: ev.AnyEvent) -> None:
        """Write the event, unless the next may replace it."""
        if isinstance(event, ev.Progress):
            self._progress = event
            self._bar.show(event)
            return
        self._show_progress()
        write(sys.stdout, self.text(event))

    def _show_progress(self) -> None:
        self._bar.clear()
        held, self._progress = self._progress, None
        if held is not None:
            write(sys.stdout, self.text(held))

    def text(self, event: ev.AnyEvent) -> str:
        """What is to be written; a part of a line waits for its other parts without a line break."""
        if isinstance(event, ev.Output):
            joined = self._joining == event.stream
            text = safe_output(event.text)
            gutter: Line = [("! ", "red")] if event.stream == "stderr" else [("  ", "")]
            before = "" if joined else self._break() + self._head(event) + paint(gutter, self._colour)
            self._joining = event.stream if event.partial else None
            return before + text + ("" if event.partial else "\n")
        if isinstance(event, ev.ThinkingDelta | ev.ReasoningDelta):
            joined = self._joining is type(event)
            before = "" if joined else self._break() + self._head(event) + "  "
            self._joining = type(event)
            return before + f"\n{' ' * 10}".join(paint(line, self._colour) for line in render_event(event))
        before = self._break()
        first, *rest = render_event(event)
        lines = [self._head(event) + "  " + paint(first, self._colour)]
        lines += [" " * 10 + paint(line, self._colour) for line in rest]
        return before + "".join(f"{line}\n" for line in lines)

    def close(self) -> None:
        """Write what was held back, and end a line that is not ended."""
        self._show_progress()
        if self._joining is not None:
            write(sys.stdout, self._break())

    def _break(self) -> str:
        unfinished = self._joining is not None
        self._joining = None
        return "\n" if unfinished else ""

    def _head(self, event: ev.AnyEvent) -> str:
        """The time of day, after the day where that is another one."""
        if not event.ts:
            return ""  # sparrow-cli records no times
        if event.ts[:19] != self._second:
            self._second = event.ts[:19]
            try:
                local = datetime.fromisoformat(event.ts).astimezone()
            except ValueError:
                return ""
            self._clock = local.strftime("%H:%M:%S")
            day = local.strftime("%Y-%m-%d")
            if day != self._day:
                self._day = day
                return (
                    paint([(f"── {day} ──", "dim")], self._colour) + "\n" + paint([(self._clock, "dim")], self._colour)
                )
        return paint([(self._clock, "dim")], self._colour)


class ProgressBar:
    """Progress on one line of standard error, where that is a terminal; nothing elsewhere."""

    def __init__(self, stream: Any = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._enabled = on_terminal(self._stream)
        self._shown = False
        self._last = 0.0
        self._turn = 0

    def show(self, event: ev.Progress) -> None:
        """Draw the bar, or a spinner where there is no total; at most so many times a second, but always the end."""
        if not self._enabled:
            return
        now = time.monotonic()
        ended = event.total is not None and event.done >= event.total
        if now - self._last < _BAR_INTERVAL and not ended:
            return
        self._last = now
        self._shown = True
        write(self._stream, f"\r\x1b[K{self._drawn(event)}")

    def clear(self) -> None:
        """Take the bar away, so that something else can be written."""
        if self._shown:
            write(self._stream, "\r\x1b[K")
        self._shown = False

    def _drawn(self, event: ev.Progress) -> str:
        words = progress_words(event)
        if not event.total:
            self._turn += 1
            return f"{'⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏'[self._turn % 10]} {words}"[:78]
        share = min(1.0, max(0.0, event.done / event.total))
        full = round(share * _BAR_COLUMNS)
        return f"{'━' * full}{'─' * (_BAR_COLUMNS - full)} {share:4.0%} {words}"[:78]


def finish_line(outcome: ev.Outcome) -> str:
    """How the run ended, for the terminal."""
    return paint([(summary(outcome), status_style(outcome.status))], coloured(sys.stderr))
