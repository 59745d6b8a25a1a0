"""What becomes of a request to a model that has failed: made again, and after how long, or given up. Pure."""

from __future__ import annotations

import os
from typing import NamedTuple

from pydantic_ai import exceptions

_LONGEST_WAIT_S = 60.0
_LONGEST_REASON = 300


class Failure(NamedTuple):
    """Why a request failed, in words, and whether the same request may do better a moment later.

    ``wait`` is how many seconds the endpoint asks us to wait; ``too_long`` says that the context was more than the model takes.
    """

    reason: str
    again: bool
    wait: float | None = None
    too_long: bool = False


def wait_before(failure: Failure, attempt: int, backoff: float) -> float:
    """Seconds before the next attempt; ``attempt`` counts those that failed, from 1. What we are told goes first, within reason."""
    if failure.wait is not None:
        return min(max(failure.wait, 0.0), _LONGEST_WAIT_S)
    return min(backoff * 2.0 ** (attempt - 1), _LONGEST_WAIT_S)


def failure_of(error: Exception, address: str = "") -> Failure:
    """What an exception of the model's library means. What nobody foresaw is an answer that makes no sense.

    ``address`` is where the model was asked.
    """
    if isinstance(error, exceptions.ModelContextWindowExceededError):
        return Failure("the conversation is longer than the model takes", again=False, too_long=True)
    if isinstance(error, exceptions.ModelRequestTimeout | exceptions.ModelTimeoutError | TimeoutError):
        return Failure("it has not answered in time", again=True)
    if isinstance(error, exceptions.ModelHTTPError):
        return Failure(_http_reason(error), _comes_again(error), error.retry_after)
    if isinstance(error, exceptions.ModelConnectionError):
        where = f" at {address}" if address else ""
        return Failure(f"it cannot be reached{where} ({_root(error)})", again=True)
    if isinstance(error, exceptions.ContentFilterError):
        return Failure("it refuses to answer", again=False)
    if isinstance(error, exceptions.UserError):
        return Failure(_first_line(str(error)), again=False)
    if isinstance(error, exceptions.ModelRequestRejectedError | exceptions.ModelQuotaExceededError):
        return Failure(f"it refuses the request ({_first_line(str(error))})", again=False)
    return Failure(f"it answers what makes no sense ({_first_line(str(error)) or type(error).__name__})", again=True)


def _comes_again(error: exceptions.ModelHTTPError) -> bool:
    if isinstance(error, exceptions.ModelQuotaExceededError):
        return False
    return error.status_code in (408, 409, 425, 429) or error.status_code >= 500


def _http_reason(error: exceptions.ModelHTTPError) -> str:
    what = {
        401: "it wants another key",
        403: "it does not let this key in",
        404: "it does not know this model, or its address is wrong",
        402: "its account is used up",
        429: "it is asked too often",
    }.get(error.status_code, "it fails" if error.status_code >= 500 else "it refuses the request")
    if isinstance(error, exceptions.ModelQuotaExceededError):
        what = "its account is used up"
    said = _message_in(error.body)
    return f"{what} (HTTP {error.status_code}{f': {said}' if said else ''})"


def _message_in(body: object) -> str:
    """The words of an error's body: they are at one of three places, or the body is all words."""
    if isinstance(body, dict):
        inner = body.get("error", body)
        body = inner.get("message") if isinstance(inner, dict) else inner
    return _first_line(body) if isinstance(body, str) and not body.lstrip().startswith("<") else ""


def _root(error: BaseException) -> str:
    """The innermost cause's own words, such as `Connection refused`."""
    while error.__cause__ is not None or error.__context__ is not None:
        inner = error.__cause__ or error.__context__
        assert inner is not None
        error = inner
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)  # asyncio says something else there
    return _first_line(str(error)) or type(error).__name__


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:_LONGEST_REASON]
