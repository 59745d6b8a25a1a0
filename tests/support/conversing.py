"""Conversations of the engine `agent`'s loop with servers on loopback, in the test's own process."""

from __future__ import annotations

import asyncio
from typing import Any

from sparrow_mp.engines.agent_loop import Failed, Loop
from sparrow_mp.engines.agent_models import Choice, open_model
from sparrow_mp.engines.agent_requests import NoModel, Requests
from sparrow_mp.engines.agent_secrets import Redactor
from sparrow_mp.engines.agent_toolbox import Toolbox
from sparrow_mp.settings import EndpointSettings, ModelsSettings
from tests.support.model_server import ModelServer, Reply, model_server
from tests.support.recording_run import RecordingRun


def hold(
    run: RecordingRun, *addresses: str, window: int = 0, prices: tuple[float, float] = (0, 0), **settings: Any
) -> str:
    """Have a conversation with the models at these addresses, called m1, m2, …, or with a `provider:model`; why it ended.

    Raises Failed.
    """
    chain = [
        Choice(f"m{n}", EndpointSettings(base_url=at, model="m", input_price=prices[0], output_price=prices[1]), window)
        if "//" in at
        else Choice(at)
        for n, at in enumerate(addresses, 1)
    ]
    models = ModelsSettings(**{"backoff": 0.0, "retries": 0, **settings})
    redactor = Redactor({})

    async def go() -> str:
        requests = Requests(chain, lambda choice: open_model(choice, {}), models, run.emit)
        toolbox = Toolbox(run.context, {"PATH": "/usr/bin:/bin"}, redactor, requests.current.window)
        return await Loop(run.context, requests, toolbox, models, "Be brief.", redactor).hold()

    try:
        return asyncio.run(go())
    except NoModel as error:
        raise Failed(str(error)) from None


def converse(run: RecordingRun, *script: Reply, **more: Any) -> ModelServer:
    """The same with one model that follows a script; the server, with what it was asked."""
    with model_server(*script) as server:
        assert hold(run, server.base_url, **more) == "end_turn"
    return server
