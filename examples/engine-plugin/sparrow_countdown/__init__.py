"""The engine `countdown`: the task is a number, from which it counts down, one each tenth of a second."""

from __future__ import annotations

from sparrow_mp import Message, Progress, RunContext


def countdown(run: RunContext) -> str:
    """An engine is anything that can be called with the run; an `async def` will do as well."""
    start = int(run.task)  # what raises makes the run `failed`, with the error as its reason
    left = start
    while left > 0:
        run.emit(Progress(done=start - left, total=start, note=f"{left} left"))
        text = run.next_message(timeout=0.1)  # waits so long for an injected message, and hears an interruption
        if text is not None:
            left += int(text)
            start += int(text)
            run.emit(Message(role="assistant", text=f"{text} more: {left} left"))
        left -= 1
    run.emit(Progress(done=start, total=start))
    return "lift-off"
