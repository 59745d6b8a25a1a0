"""What can be set of language models, of agents and of the servers that offer tools to them."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from sparrow_mp.setting_kinds import NEW_RUNS, Section, Unit, count, number, plain, seconds


class LocalModelSettings(Section, kw_only=True):
    """The local model that `sparrow model serve` serves, and what agents use where nothing else is configured."""

    file: Annotated[
        str, plain("A GGUF file. Empty: a small model for trying things out, which is fetched once.", NEW_RUNS)
    ] = ""
    idle: Annotated[
        float,
        seconds(
            "After how long without a request a server ends that was started because a run needed it. 0: never.",
            NEW_RUNS,
        ),
    ] = 900.0
    threads: Annotated[
        int, count("How many processors it computes with. 0: half of them, at most 8.", NEW_RUNS, most=512)
    ] = 0
    context: Annotated[
        int, count("How many tokens a conversation with it may have.", NEW_RUNS, least=256, most=10_000_000)
    ] = 8192


class ModelsSettings(Section, kw_only=True):
    """The language models that the engine `agent` works with."""

    chain: Annotated[
        list[str],
        plain(
            "The models, the next one for when those before it fail: `provider:model`, the name of an [endpoints.NAME], or a"
            " model at `base_url`. Empty: the usual one of a provider whose key is in the environment, else the small local one.",
            NEW_RUNS,
        ),
    ] = msgspec.field(default_factory=list)
    base_url: Annotated[
        str, plain("The OpenAI-compatible endpoint of the models in the chain that name no provider.", NEW_RUNS)
    ] = ""
    key_env: Annotated[str, plain("The variable that has the key for `base_url`. Empty: it needs none.", NEW_RUNS)] = ""
    context_window: Annotated[
        int, count("How many tokens a model takes in, where that is not known of it. 0: 32,768.", NEW_RUNS)
    ] = 0
    compact_at: Annotated[
        float,
        Meta(
            description="The share of the context window past which older turns are summed up.",
            ge=0.1,
            le=1.0,
            extra={"unit": Unit.NONE, "changes": NEW_RUNS},
        ),
    ] = 0.8
    max_turns: Annotated[
        int, count("How many requests an agent may make of its models in one run.", NEW_RUNS, least=1)
    ] = 100
    retries: Annotated[
        int,
        count("How often a request that failed is made again, before the next model is asked.", NEW_RUNS, most=20),
    ] = 3
    backoff: Annotated[
        float, seconds("How long it waits before it does; each time twice as long, unless it is told how long.", NEW_RUNS)
    ] = 1.0  # fmt: skip
    patience: Annotated[
        float, seconds("After how long without a word from a model a request has failed.", NEW_RUNS, least=0.1)
    ] = 300.0


class EndpointSettings(Section, kw_only=True):
    """An OpenAI-compatible endpoint, by the name that `models.chain` has for it."""

    base_url: Annotated[str, plain("Its address, such as http://127.0.0.1:11434/v1.", NEW_RUNS)] = ""
    model: Annotated[str, plain("The model to ask there. Empty: the one that has the table's name.", NEW_RUNS)] = ""
    key_env: Annotated[str, plain("The variable, or the keyring's entry, that has its key. Empty: none.", NEW_RUNS)] = (
        ""
    )
    context_window: Annotated[int, count("As in [models]; 0: what is said there.", NEW_RUNS)] = 0
    input_price: Annotated[
        float, number("What a million tokens cost that it reads. Without prices no budget can be kept.", NEW_RUNS, Unit.USD)
    ] = 0.0  # fmt: skip
    output_price: Annotated[float, number("What a million tokens cost that it writes.", NEW_RUNS, Unit.USD)] = 0.0


class AgentSettings(Section, kw_only=True):
    """A coding agent that speaks the Agent Client Protocol, by the name that `--agent` has for it. See `sparrow agents`."""

    command: Annotated[
        str, plain("The command line that starts it. Empty: the usual one of an agent that sparrow knows.", NEW_RUNS)
    ] = ""
    env: Annotated[dict[str, str], plain("Variables that it has beside the run's.", NEW_RUNS)] = msgspec.field(
        default_factory=dict
    )
    login: Annotated[str, plain("What to do where it needs a login: it is said then.", NEW_RUNS)] = ""


class McpSettings(Section, kw_only=True):
    """A server of the Model Context Protocol, whose tools agents have."""

    command: Annotated[
        str, plain("The program to start, which speaks over its standard input and output.", NEW_RUNS)
    ] = ""
    args: Annotated[list[str], plain("Its arguments.", NEW_RUNS)] = msgspec.field(default_factory=list)
    env: Annotated[dict[str, str], plain("Variables that it has beside the run's.", NEW_RUNS)] = msgspec.field(
        default_factory=dict
    )
    url: Annotated[
        str, plain("Instead of a command: the address of a server that runs (streamable HTTP).", NEW_RUNS)
    ] = ""
