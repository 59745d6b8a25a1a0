"""The engine's process: what happens between the monitor's fork and the engine's end."""

from __future__ import annotations

import asyncio
import atexit
import importlib
import inspect
import itertools
import logging
import os
import re
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

import msgspec
from setproctitle import setproctitle

from sparrow_mp.events import RunStarted
from sparrow_mp.failpoints import ARMED, reach
from sparrow_mp.run.channel import MAX_RESULT_BYTES, Channel
from sparrow_mp.run.context import CannotRun, Interrupted, RunContext
from sparrow_mp.run.engines import EngineMissing, load_engine, plain_command
from sparrow_mp.run.outbox import Outbox
from sparrow_mp.run.permits import Permits
from sparrow_mp.wire import RunSpec

MAX_RESULT_DEPTH = 300
_UNUSED = "colorsys"
"""A small module that nobody has imported yet, for rehearsing an import."""
_NO_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*"|[^][{}]')
_OURS = ("VIRTUAL_ENV", "PYTHON", "LD_")


class Rejected(Exception):
    """The run cannot be started; ``code`` is the exit code that this has in a shell."""

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code


def run_engine(spec: RunSpec, folder: Path, channel: Channel, wake_fd: int, home: Mapping[str, str]) -> NoReturn:
    """Be the engine of a run, and end. ``home`` is the environment that this interpreter was started with."""
    status = 1
    if ARMED:
        reach("engine.begun")
    try:
        status = _drive(spec, folder, channel, wake_fd, home)
    except Rejected as refused:
        channel.send(rejected=refused.reason, code=refused.code)
    except BaseException as error:  # the boundary of the process: whatever it is, it is told, and then the process ends
        channel.send(raised=f"{type(error).__name__}: {error}")
        traceback.print_exc()
    finally:
        _leave(status)


def resume_exec(folder: str, channel_fd: int, wake_fd: int) -> NoReturn:
    """The same in a fresh interpreter: what the bootstrap of an exec'd ``python`` engine calls."""
    spec = msgspec.json.decode((Path(folder) / "task.json").read_bytes(), type=RunSpec)
    spec.interpreter = None
    for fd in (channel_fd, wake_fd):
        os.set_inheritable(fd, False)
    channel = Channel(socket.socket(fileno=channel_fd))
    run_engine(spec, Path(folder), channel, wake_fd, os.environ)


def _drive(spec: RunSpec, folder: Path, channel: Channel, wake_fd: int, home: Mapping[str, str]) -> int:
    argv = plain_command(spec)
    if argv is not None:
        _become(argv, spec, folder, channel, wake_fd, resumes=False)
    opening = RunStarted(task=spec.task, agent=spec.agent)
    outbox = Outbox(folder / "outbox", spec.run, opening, wake_fd, engine=True)
    context = _context(spec, home, outbox, channel)
    try:
        engine = load_engine(spec.engine)
    except EngineMissing as error:
        raise Rejected(str(error)) from None
    command = getattr(engine, "command", None)
    if command is not None:
        argv = command(context)
        if argv is not None:
            _become(argv, spec, folder, channel, wake_fd, resumes=getattr(engine, "resumes", False))
    setproctitle(f"sparrow: run {spec.run[:8]} ({spec.name or spec.engine})")
    _prepare_python(context)
    function = _resolve(engine, context)
    channel.send(started=True)
    return _call(function, context, channel)


def _context(spec: RunSpec, home: Mapping[str, str], outbox: Outbox, channel: Channel) -> RunContext:
    return RunContext(
        run=spec.run,
        task=spec.task,
        agent=spec.agent,
        autonomy=spec.autonomy,
        budget=spec.budget,
        argv=spec.argv,
        workspace=Path(spec.cwd),
        approval_timeout=spec.approval_timeout,
        permits=Permits(spec.autonomy, Path(spec.cwd), None if spec.allowed is None else Path(spec.allowed)),
        interpreter=other_interpreter(spec, home),
        session=spec.session,
        config=None if spec.config is None else Path(spec.config),
        outbox=outbox,
        channel=channel,
    )


def rehearse_engine() -> None:
    """Do without any effect what an engine's process does first, so that the memory that it needs is its own by then."""
    spec = RunSpec(run="", task="", engine="python", agent="", endpoint="", cwd="/", env={}, allowed="/")
    nowhere, nobody = socket.socketpair()
    with nowhere, nobody:
        _context(spec, os.environ, cast(Outbox, None), Channel(nowhere))
    load_engine("python")
    _open_standard()
    importlib.import_module(_UNUSED)


def other_interpreter(spec: RunSpec, home: Mapping[str, str]) -> str | None:
    """The Python that the caller means, where this process would not do; None where it does."""
    if spec.interpreter is None:
        return None
    virtual = spec.env.get("VIRTUAL_ENV")
    wanted = os.path.join(virtual, "bin", "python") if virtual else spec.interpreter
    folder = os.path.dirname(os.path.abspath(wanted))
    same = os.path.dirname(folder) == sys.prefix or os.path.abspath(wanted) == os.path.abspath(sys.executable)
    return None if same and _python_settings(spec.env) == _python_settings(home) else wanted


def _python_settings(env: Mapping[str, str]) -> dict[str, str]:
    """The variables that shape an interpreter before it starts."""
    return {name: value for name, value in env.items() if name.startswith(_OURS)}


def _become(argv: list[str], spec: RunSpec, folder: Path, channel: Channel, wake_fd: int, *, resumes: bool) -> NoReturn:
    """Become the command, which calls ``resume_exec`` where it ``resumes``. Raises Rejected where it cannot be executed."""
    if resumes:
        quiet = msgspec.structs.replace(spec, env={})
        path = folder / "task.json"
        path.write_bytes(msgspec.json.encode(quiet))
        argv = [*argv, str(folder), str(channel.fileno()), str(wake_fd)]
        for fd in (channel.fileno(), wake_fd):
            os.set_inheritable(fd, True)
    if not argv or "\0" in "".join(argv):
        raise Rejected("the command is empty or has a NUL in it", 126)
    for ignored in (signal.SIGPIPE, signal.SIGXFSZ):  # by Python, for itself
        signal.signal(ignored, signal.SIG_DFL)
    if ARMED:
        reach("engine.exec")
    try:
        os.execvpe(argv[0], argv, dict(spec.env))
    except (FileNotFoundError, NotADirectoryError):
        raise Rejected(f"program not found: {argv[0]}; check its name and your PATH", 127) from None
    except OSError as error:
        raise Rejected(f"cannot execute {argv[0]}: {error.strerror}", 126) from None


def _open_standard() -> tuple[TextIO, TextIO, TextIO]:
    return (
        open(0, encoding="utf-8", errors="replace", closefd=False),
        open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False),
        open(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False),
    )


def _prepare_python(context: RunContext) -> None:
    """Make this forked process look like a fresh interpreter to the engine."""
    sys.stdin, sys.stdout, sys.stderr = _open_standard()
    sys.argv = [context.task]
    for handler in logging.getLogger().handlers[:]:
        logging.getLogger().removeHandler(handler)  # the zygote's log is not for what the engine logs
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: context.interrupt())
    _keep_signals_from_forks()


def _keep_signals_from_forks() -> None:
    """What the engine forks is ended by SIGTERM, as multiprocessing expects of its workers.

    With our handler they would live on, and with asyncio's their signals would arrive in the engine. SIGTERM is held back
    meanwhile, since one that came between the fork and the change would be forgotten.
    """
    masks = threading.local()

    def before() -> None:
        masks.former = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.former)

    def in_child() -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.former)

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)


def _resolve(engine: Any, context: RunContext) -> Any:
    """What to call: an engine that finds its own task (``python``) says what."""
    find = getattr(engine, "find", None)
    if find is None:
        return engine
    try:
        return find(context)
    except CannotRun as error:
        raise Rejected(str(error)) from None
    except (Exception, SystemExit) as error:  # a user's module may raise anything while it is imported
        _print_traceback(error)
        raise Rejected(f"cannot load {context.task}: {type(error).__name__}: {error}") from None


def _call(function: Any, context: RunContext, channel: Channel) -> int:
    """Call the engine; its exit code. What it returns is the run's result."""
    try:
        result = function(context)
        if inspect.iscoroutine(result):
            result = asyncio.run(_cooperatively(result, context))
        elif inspect.isclass(function) and callable(getattr(result, "run", None)):
            result = result.run()
        if result is not None:
            _send_result(result, channel)
    except SystemExit as leaving:
        return _exit_code(leaving)
    except Interrupted:
        return _interrupted(context)
    except KeyboardInterrupt:
        return 130
    except asyncio.CancelledError:
        return _interrupted(context) if context.interrupted else 1
    except BaseException as error:  # the boundary of the engine: it failed, which is told as any command's failure is
        channel.send(raised=f"{type(error).__name__}: {error}")
        _print_traceback(error)
        return 1
    return 0


def _send_result(result: Any, channel: Channel) -> None:
    """The result, or why it is left out: it has to fit into RunFinished, which everybody must be able to read."""
    encoded = msgspec.json.encode(result, enc_hook=repr)
    if b"\n" in encoded or b"\r" in encoded:
        encoded = msgspec.json.encode(
            msgspec.json.decode(encoded)
        )  # it was JSON already (msgspec.Raw), on several lines
    if len(encoded) > MAX_RESULT_BYTES:
        channel.send(reason=f"its result has {len(encoded)} bytes, more than {MAX_RESULT_BYTES}, and was left out")
    elif _depth(encoded) > MAX_RESULT_DEPTH:
        channel.send(reason=f"its result is nested more than {MAX_RESULT_DEPTH} deep, and was left out")
    else:
        channel.send(result=msgspec.Raw(encoded))


def _depth(encoded: bytes) -> int:
    """How deep a JSON text is nested, where that may be too deep."""
    if encoded.count(b"[") + encoded.count(b"{") <= MAX_RESULT_DEPTH:
        return 0
    steps = (1 if char in b"[{" else -1 for char in _NO_BRACKETS.sub(b"", encoded))
    return max(itertools.accumulate(steps), default=0)


def _print_traceback(error: BaseException) -> None:
    """The engine's own part of the traceback, from the first frame that is not ours; nothing where there is none."""
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    frames = error.__traceback__
    while frames is not None and _within(frames.tb_frame.f_code.co_filename, ours):
        frames = frames.tb_next
    if frames is not None:
        traceback.print_exception(error.with_traceback(frames))


def _within(file: str, folder: str) -> bool:
    """Whether a frame's file is in the folder, or in the interpreter's machinery that imports and awaits."""
    return file.startswith((folder, "<frozen importlib")) or any(
        f"{os.sep}{machinery}{os.sep}" in file for machinery in ("asyncio", "importlib")
    )


async def _cooperatively(coroutine: Any, context: RunContext) -> Any:
    """Await the engine; an interruption cancels it, as asyncio's people expect."""
    main = asyncio.current_task()
    loop = asyncio.get_running_loop()
    if main is not None:

        def interrupt() -> None:
            context.interrupt()
            main.cancel()

        loop.add_signal_handler(signal.SIGTERM, interrupt)
    return await coroutine


def _exit_code(leaving: SystemExit) -> int:
    if leaving.code is None or isinstance(leaving.code, int):
        return (leaving.code or 0) & 0xFF
    sys.stderr.write(f"{leaving.code}\n")
    return 1


def _interrupted(context: RunContext) -> int:
    """End as the signal would have ended us, which is what a parent expects of an interrupted process."""
    _flush()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGTERM)
    return 143


def _leave(status: int) -> NoReturn:
    """End without returning into the code that forked us; what the engine registered for its exit still runs."""
    try:
        threading._shutdown()  # type: ignore[attr-defined]  # waits for non-daemon threads, as the interpreter's end does
        atexit._run_exitfuncs()
    except BaseException:  # nothing that an engine registered may keep its process from ending
        traceback.print_exc()
    finally:
        _flush()
        os._exit(status)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            pass
