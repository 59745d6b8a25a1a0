"""The engine's standard streams, held by the monitor: what it prints becomes events, what is handed to it is written.

The pipes belong to the run and not to the supervisor, so that whoever prints into them outlives it.
"""

from __future__ import annotations

import fcntl
import os
import time

from sparrow_mp.events import Output, Stream
from sparrow_mp.run.output import LineSplitter

_PROMPT_S = 0.2
_READ_BYTES = 1 << 16
_READS_A_TURN = 4
_PIPE_BYTES = 1 << 18


class _Pipe:
    """One output stream."""

    def __init__(self, name: Stream, fd: int) -> None:
        self.name: Stream = name
        self.fd = fd
        self.splitter = LineSplitter()
        self.touched = 0.0

    def outputs(self, pieces: list[tuple[str, bool]]) -> list[Output]:
        return [Output(stream=self.name, text=text, partial=partial) for text, partial in pieces]


class Stdio:
    """Both ends of the three streams until the engine is forked; then each process keeps its own."""

    def __init__(self) -> None:
        """Make the pipes. Raises OSError."""
        self._most: int | None = None
        out_read, self._out_write = os.pipe2(os.O_CLOEXEC)
        err_read, self._err_write = os.pipe2(os.O_CLOEXEC)
        self._in_read, self._in_write = os.pipe2(os.O_CLOEXEC)
        self._pipes = [_Pipe("stdout", out_read), _Pipe("stderr", err_read)]
        self._input = b""
        self._input_ends = False
        self.printed = 0
        """How many bytes have been read of the two."""
        self.quiet = False
        """Whether the last ``read`` found nothing."""

    def become_engines(self, *, with_input: bool) -> None:
        """In the engine's process: its standard streams are these. Without input it reads the empty file."""
        if not with_input:
            os.close(self._in_read)
            self._in_read = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        for standard, fd in enumerate((self._in_read, self._out_write, self._err_write)):
            os.dup2(fd, standard)
        for fd in (self._in_read, self._in_write, self._out_write, self._err_write, *(pipe.fd for pipe in self._pipes)):
            if fd > 2:
                os.close(fd)

    def become_monitors(self, *, with_input: bool, most: int | None = None) -> None:
        """In the monitor: let go of the engine's ends, and never wait at ours. Of the output ``most`` bytes are handed on."""
        self._most = most
        if not with_input:
            os.close(self._in_write)
            self._in_write = -1
        for fd in (self._in_read, self._out_write, self._err_write):
            os.close(fd)
        for fd in (self._in_write, *self.descriptors):
            if fd >= 0:
                os.set_blocking(fd, False)
        for fd in self.descriptors:
            try:
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            except OSError:
                pass  # the user's pipes are at their limit: the usual size will do

    # ── what it prints ──

    @property
    def descriptors(self) -> list[int]:
        """The streams that are open, for waiting."""
        return [pipe.fd for pipe in self._pipes]

    def read(self) -> list[Output]:
        """A bounded part of what has been printed since; a stream that ended is closed."""
        outputs: list[Output] = []
        self.quiet = True
        for pipe in list(self._pipes):
            for _ in range(_READS_A_TURN):
                try:
                    data = os.read(pipe.fd, _READ_BYTES)
                except BlockingIOError:
                    break
                if not data:
                    outputs += pipe.outputs(pipe.splitter.finish())
                    os.close(pipe.fd)
                    self._pipes.remove(pipe)
                    break
                self.quiet = False
                room = len(data) if self._most is None else max(0, self._most - self.printed)
                self.printed += len(data)
                data = data[:room]
                pipe.touched = time.monotonic()
                outputs += pipe.outputs(pipe.splitter.feed(data))
        return outputs

    def mute(self) -> None:
        """Hand on nothing more of what is printed."""
        self._most = self.printed

    def prompts(self) -> list[Output]:
        """Lines that have been unfinished for a while, as far as they go."""
        outputs: list[Output] = []
        now = time.monotonic()
        for pipe in self._pipes:
            if pipe.splitter.unfinished and now - pipe.touched >= _PROMPT_S:
                outputs += pipe.outputs(pipe.splitter.flush())
                pipe.touched = now
        return outputs

    @property
    def next_prompt(self) -> float | None:
        """The moment (monotonic seconds) at which ``prompts`` has something; None where no line is unfinished."""
        return min((pipe.touched + _PROMPT_S for pipe in self._pipes if pipe.splitter.unfinished), default=None)

    def finish(self) -> list[Output]:
        """Close what is still open (its other end has left the tree), with what there is of a last line."""
        outputs: list[Output] = []
        for pipe in self._pipes:
            outputs += pipe.outputs(pipe.splitter.finish())
            os.close(pipe.fd)
        self._pipes.clear()
        return outputs

    # ── what is handed to it ──

    @property
    def takes_input(self) -> bool:
        """Whether its standard input is open."""
        return self._in_write >= 0 and not self._input_ends

    @property
    def unread(self) -> int:
        """How many bytes are still to be written, since the engine does not read."""
        return len(self._input)

    def hand_over(self, data: bytes, *, ends: bool = False) -> None:
        """Write to its standard input, and end it where ``ends``; ``pump`` writes what finds no room now."""
        self._input += data
        self._input_ends = self._input_ends or ends
        self.pump()

    def pump(self) -> None:
        """Write what the engine takes now."""
        if self._in_write < 0:
            return
        try:
            while self._input:
                self._input = self._input[os.write(self._in_write, self._input[:_READ_BYTES]) :]
        except BlockingIOError:
            return
        except OSError:  # the reader has closed its end; a shell's pipe would lose it as well
            self._input = b""
            self._input_ends = True
        if self._input_ends:
            os.close(self._in_write)
            self._in_write = -1
