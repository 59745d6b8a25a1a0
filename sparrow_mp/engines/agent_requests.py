"""Requests to models: streamed, made again where they fail, and made of the next model where that does not help."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pydantic_ai.direct import model_request_stream
from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.messages import (
    ModelMessage,
    ModelResponse,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
    ThinkingPart,
    ThinkingPartDelta,
    ToolCallPart,
)
from pydantic_ai.models import ModelRequestParameters

from sparrow_mp.engines.agent_compaction import tokens_of
from sparrow_mp.engines.agent_models import Candidate, Choice, ModelUnusable
from sparrow_mp.engines.agent_retry import Failure, failure_of, wait_before
from sparrow_mp.engines.agent_speech import Speech
from sparrow_mp.events import (
    AgentStatus,
    CostUpdate,
    Event,
    Message,
    ModelSwitched,
    RouteSelected,
    TokenUsage,
    TokenUsageEstimated,
)

if TYPE_CHECKING:
    from pydantic_ai.settings import ModelSettings

    from sparrow_mp.settings import ModelsSettings


class NoModel(Exception):
    """None of the models answers; the message says why not."""


class TooLong(Exception):
    """The conversation is longer than the model takes."""


class Requests:
    """The models of one run, and what they have used so far. ``current`` is the one that is asked."""

    def __init__(
        self,
        choices: Sequence[Choice],
        open_one: Callable[[Choice], Candidate],
        settings: ModelsSettings,
        emit: Callable[[Event], None],
    ) -> None:
        self._choices = choices
        self._open = open_one
        self._settings = settings
        self._emit = emit
        self._next = 0
        self._failed: list[tuple[str, str]] = []
        self._input = self._output = 0
        self._usd = 0.0
        self._estimated = False
        self._told_price = False
        self.measured = 0
        """Tokens of the last request and its answer, as the endpoint counts them."""
        self.current = self._first()

    def _first(self) -> Candidate:
        first = self._open_next()
        self._emit(RouteSelected(chain=[choice.name for choice in self._choices], context_window=first.window))
        for name, reason in self._failed:
            self._emit(ModelSwitched(from_=name, to=first.name, reason=reason))
        return first

    def _open_next(self) -> Candidate:
        """The next model that can be asked. Raises NoModel where there is none left."""
        while self._next < len(self._choices):
            choice = self._choices[self._next]
            self._next += 1
            try:
                return self._open(choice)
            except ModelUnusable as error:
                self._failed.append((choice.name, str(error)))
        if len(self._failed) == 1:
            (name, reason) = self._failed[0]
            raise NoModel(f"the model `{name}` does not answer: {reason}")
        raise NoModel("no model answers: " + "; ".join(f"`{name}`: {reason}" for name, reason in self._failed))

    def _switch(self, failure: Failure) -> None:
        """Go on with the next model. Raises NoModel."""
        before = self.current
        self._failed.append((before.name, failure.reason))
        self.current = self._open_next()
        self.measured = 0
        self._emit(ModelSwitched(from_=before.name, to=self.current.name, reason=failure.reason))

    # ── asking ──

    async def ask(
        self, messages: Sequence[ModelMessage], parameters: ModelRequestParameters, *, aloud: bool = True
    ) -> ModelResponse:
        """The answer of the first model that gives one. What it says is told as it comes where it is ``aloud``.

        Raises NoModel, and TooLong where a model takes no such long conversation.
        """
        attempt = 0
        while True:
            try:
                response = await self._ask_once(messages, parameters, aloud=aloud)
                self._account(messages, response)
                return response
            except Exception as error:  # each library has its own, for whatever an endpoint may answer
                failure = failure_of(error, self.current.address)
            if failure.too_long:
                raise TooLong
            attempt += 1
            if not failure.again or attempt > self._settings.retries:
                self._switch(failure)
                attempt = 0
                continue
            seconds = wait_before(failure, attempt, self._settings.backoff)
            note = f"{failure.reason}; asked again in {seconds:g} s"
            self._emit(AgentStatus(role=self.current.name, status="Error", note=note))
            await asyncio.sleep(seconds)

    async def _ask_once(
        self, messages: Sequence[ModelMessage], parameters: ModelRequestParameters, *, aloud: bool
    ) -> ModelResponse:
        settings: ModelSettings = {"timeout": self._settings.patience, "max_retries": 0, "parallel_tool_calls": True}
        speech = Speech(self._emit if aloud else _say_nothing, time.monotonic)
        async with model_request_stream(
            self.current.model, messages, model_settings=settings, model_request_parameters=parameters
        ) as stream:
            try:
                async for event in _in_time(stream, self._settings.patience):
                    for text, thinks in _pieces(event):
                        speech.say(text, thinks=thinks)
                    if isinstance(event, PartEndEvent):
                        speech.flush()
            finally:
                speech.flush()
            response: ModelResponse = stream.get()
        if not response.usage.output_tokens and "finish_reason" not in (response.provider_details or {}):
            raise UnexpectedModelBehavior("its answer broke off")
        if not any(isinstance(part, TextPart | ToolCallPart) and _has_content(part) for part in response.parts):
            raise UnexpectedModelBehavior("it says nothing")
        return response

    # ── accounting ──

    def _account(self, messages: Sequence[ModelMessage], response: ModelResponse) -> None:
        usage = response.usage
        given, made = usage.input_tokens, usage.output_tokens
        if not given and not made:
            given, made = tokens_of(messages), tokens_of([response])
            self._estimated = True
        self._input += given
        self._output += made
        self.measured = given + made
        if self._estimated:
            reason = "the endpoint does not count them"
            self._emit(TokenUsageEstimated(input=self._input, output=self._output, reason=reason))
        else:
            self._emit(TokenUsage(input=self._input, output=self._output))
        cost = self.current.cost(response)
        if cost is not None:
            self._usd += cost
            self._emit(CostUpdate(usd=self._usd))

    def warn_of_budget(self) -> None:
        """Say that a budget cannot be kept, where that is so."""
        if not self._usd and not self._told_price and self._input:
            self._told_price = True
            text = f"The price of `{self.current.name}` is not known, so the budget is not kept; [endpoints.NAME] takes prices."
            self._emit(Message(role="system", text=text))


async def _in_time(stream: Any, seconds: float) -> AsyncIterator[Any]:
    """The stream's events, none of them later than so many seconds after the one before. Raises TimeoutError."""
    events = aiter(stream)
    while True:
        async with asyncio.timeout(seconds):
            try:
                event = await anext(events)
            except StopAsyncIteration:
                return
        yield event


def _pieces(event: Any) -> Iterator[tuple[str, bool]]:
    """What an event adds to what the model says, and whether it is only thought."""
    match event:
        case PartStartEvent(part=TextPart(content=text)) if text:
            yield text, False
        case PartStartEvent(part=ThinkingPart(content=text)) if text:
            yield text, True
        case PartDeltaEvent(delta=TextPartDelta(content_delta=text)) if text:
            yield text, False
        case PartDeltaEvent(delta=ThinkingPartDelta(content_delta=str(text))) if text:
            yield text, True
        case _:
            pass


def _has_content(part: TextPart | ToolCallPart) -> bool:
    return isinstance(part, ToolCallPart) or bool(part.content.strip())


def _say_nothing(_: Event) -> None:
    """For what is none of the conversation, such as a summary."""
