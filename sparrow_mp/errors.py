"""Every fault that a user can meet: one sentence, the code it has on the control socket, the exit code it gives."""

from __future__ import annotations


class SparrowError(Exception):
    """A fault that is told as one clear sentence with its cause and its remedy, never as a traceback."""

    code = "internal"
    exit_code = 1
    retry_after: float | None = None
    """Seconds after which the same request may be taken, where that is known."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadRequest(SparrowError):
    """What was asked is not a request: not JSON, an unknown op or field, a value of the wrong type."""

    code = "bad_request"
    exit_code = 2


class NoSuchRun(SparrowError):
    """No run has this id, prefix or name."""

    code = "no_such_run"
    exit_code = 3


class AmbiguousRun(SparrowError):
    """The prefix or name fits more than one run."""

    code = "ambiguous_run"
    exit_code = 3


class NotRunning(SparrowError):
    """The run has ended."""

    code = "not_running"


class NoSuchEngine(SparrowError):
    """No engine of this name is installed."""

    code = "no_such_engine"
    exit_code = 2


class NoSuchJob(SparrowError):
    """No scheduled job has this name."""

    code = "no_such_job"
    exit_code = 3


class QueueFull(SparrowError):
    """As many runs wait as may wait."""

    code = "queue_full"


class RateLimited(SparrowError):
    """Too many requests of this client; the message says when to try again."""

    code = "rate_limited"


class TooLarge(SparrowError):
    """A request, a task or an event is over its limit."""

    code = "too_large"
    exit_code = 2


class ShuttingDown(SparrowError):
    """The supervisor is ending and takes no new work."""

    code = "shutting_down"


class NoSupervisor(SparrowError):
    """No supervisor runs, and none may be started or none would start."""

    code = "no_supervisor"
    exit_code = 69


class ConfigError(SparrowError):
    """A setting is wrong; the message names the file and the key."""

    code = "bad_config"
    exit_code = 2


class StateError(SparrowError):
    """The state or runtime folder cannot be used: not ours, not private, not writable, held by another supervisor."""

    code = "bad_state"


class Gone(SparrowError):
    """What was asked for has been pruned."""

    code = "gone"


class TimedOut(SparrowError, TimeoutError):
    """What was waited for did not come in time; whether it still will is open."""

    code = "timed_out"


_BY_CODE = {cls.code: cls for cls in SparrowError.__subclasses__()}


def error_from_code(code: str, message: str) -> SparrowError:
    """The error that a reply of the control socket stands for."""
    return _BY_CODE.get(code, SparrowError)(message)
