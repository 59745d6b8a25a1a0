"""The loop: a model is asked, what it wants done is done, and it is asked again, until it wants nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from pydantic_ai.messages import ModelMessage, ModelRequest, ModelResponse, ToolCallPart, ToolReturnPart, UserPromptPart
from pydantic_ai.models import ModelRequestParameters

from sparrow_mp.engines import agent_compaction as compaction
from sparrow_mp.engines.agent_requests import NoModel, Requests, TooLong
from sparrow_mp.engines.agent_secrets import Redactor
from sparrow_mp.engines.agent_toolbox import Toolbox
from sparrow_mp.events import Compacted
from sparrow_mp.run.context import RunContext
from sparrow_mp.settings import ModelsSettings

_T = TypeVar("_T")
_PUT_OFF = "This was given up, because the user says something first."


class Failed(Exception):
    """The run cannot go on; the message is for people."""


class Hurried(Exception):
    """People have said what is not to wait until what is being done has ended."""

    def __init__(self, texts: list[str]) -> None:
        super().__init__()
        self.texts = texts


class Loop:
    """One conversation, from the task to its end."""

    def __init__(
        self,
        run: RunContext,
        requests: Requests,
        tools: Toolbox | None,
        settings: ModelsSettings,
        instructions: str,
        redactor: Redactor,
        recalled: Sequence[ModelMessage] = (),
    ) -> None:
        self._run = run
        self._requests = requests
        self._tools = tools
        self._settings = settings
        self._instructions = instructions
        self._redactor = redactor
        self._messages: list[ModelMessage] = list(recalled)
        definitions = tools.definitions() if tools is not None else []
        self._parameters = ModelRequestParameters(function_tools=definitions, allow_text_output=True)

    async def hold(self) -> str:
        """Go on until the model wants nothing more and nobody has said anything since; why it ended. Raises Failed."""
        parts: list[Any] = [UserPromptPart(self._run.task)]
        for _ in range(self._settings.max_turns):
            parts += [UserPromptPart(text) for text in self._run.messages()]
            self._messages.append(ModelRequest(parts=parts, instructions=self._instructions))
            try:
                response = await self._unless_urgent(self._answer())
            except Hurried as hurried:
                self._messages.pop()
                parts += [UserPromptPart(text) for text in hurried.texts]
                continue
            self._messages.append(response)
            parts = await self._do_all([part for part in response.parts if isinstance(part, ToolCallPart)])
            if not parts:
                self._check_end(response)
                parts = [UserPromptPart(text) for text in self._run.messages()]
            if not parts:
                return "end_turn"
        raise Failed(f"it has made {self._settings.max_turns} requests, which is all that `models.max_turns` allows")

    @staticmethod
    def _check_end(response: ModelResponse) -> None:
        if response.finish_reason == "length":
            raise Failed("the model's answer was cut off: it has reached the most that it may say at once")
        if response.finish_reason == "content_filter":
            raise Failed("the model refuses to go on")

    async def _do_all(self, calls: Sequence[ToolCallPart]) -> list[Any]:
        """The calls one after the other, and their answers; what people say that is not to wait puts the rest off."""
        answers: list[Any] = []
        said: list[Any] = []
        for call in calls:
            answer = _PUT_OFF
            if not said:
                try:
                    answer = await self._unless_urgent(self._do(call))
                except Hurried as hurried:
                    said = [UserPromptPart(text) for text in hurried.texts]
            answers.append(ToolReturnPart(tool_name=call.tool_name, content=answer, tool_call_id=call.tool_call_id))
        return answers + said

    async def _unless_urgent(self, work: Coroutine[Any, Any, _T]) -> _T:
        """What comes of the work. Raises Hurried, and gives it up, where somebody says what is not to wait for that."""
        doing = asyncio.ensure_future(work)
        hearing = asyncio.ensure_future(self._run.urgent_async())
        try:
            await asyncio.wait((doing, hearing), return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                hearing.result()
                texts = list(self._run.messages())
                if texts:
                    raise Hurried(texts)
            return await doing
        finally:
            doing.cancel()
            hearing.cancel()
            await asyncio.gather(doing, hearing, return_exceptions=True)

    async def _do(self, part: ToolCallPart) -> str:
        """One call of a tool; its answer."""
        try:
            args: Any = part.args_as_dict(raise_if_invalid=True)
        except (ValueError, AssertionError):
            args = part.args
        if self._tools is None:
            return "There are no tools."
        return await self._tools.call(part.tool_call_id, part.tool_name, args)

    # ── asking ──

    async def _answer(self) -> ModelResponse:
        window = self._requests.current.window
        if compaction.too_long(self._messages, self._requests.measured, window, self._settings.compact_at):
            await self._compact(window)
        try:
            for _ in range(2):
                try:
                    response = await self._requests.ask(self._messages, self._parameters)
                except TooLong:  # its window is not what we took it for
                    await self._compact(min(self._requests.current.window, compaction.tokens_of(self._messages)))
                    continue
                if self._run.budget is not None:
                    self._requests.warn_of_budget()
                return response
        except NoModel as error:
            raise Failed(self._redactor.text(str(error))) from None
        raise Failed("the conversation is longer than the model takes, even summed up")

    async def _compact(self, window: int) -> None:
        """Have what is old of the conversation summed up, and what is long in it cut, for a window of so many tokens."""
        before = compaction.chars_of(self._messages)
        *older, newest = self._messages  # what is about to be asked stays as it is
        cut = compaction.cut_of(older, window)
        if cut > 1:
            summary = await self._summary(older[:cut], window)
            older = compaction.compacted(older, cut, summary, self._run.task)
        messages = [*older, newest]
        if cut <= 1 or compaction.tokens_of(messages) > self._settings.compact_at * window:
            messages = compaction.shortened(messages, window // 2)
        self._messages = messages
        self._requests.measured = 0
        self._run.emit(Compacted(before_chars=before, after_chars=compaction.chars_of(self._messages)))

    async def _summary(self, messages: Sequence[ModelMessage], window: int) -> str:
        """By the model; from the calls alone where it makes none."""
        room = window * compaction.CHARS_PER_TOKEN // 2
        asked = f"{compaction.as_text(messages, room)}\n\n{compaction.SUMMARY_REQUEST}"
        request = ModelRequest(parts=[UserPromptPart(asked)], instructions="You sum up a conversation.")
        try:
            response = await self._requests.ask([request], ModelRequestParameters(), aloud=False)
        except (NoModel, TooLong):
            return compaction.summary_without_model(messages)
        return (response.text or "").strip() or compaction.summary_without_model(messages)
