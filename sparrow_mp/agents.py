"""The agents that speak the Agent Client Protocol and are known by name: how each is started, installed and logged in. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from sparrow_mp.settings import AgentSettings


class Profile(NamedTuple):
    """One agent. ``commands`` are the ways to start it, the first that is installed counts.

    So that the run's autonomy counts, and not what the agent thinks harmless by itself: ``mode`` is the mode of a session in
    which it asks before it does something, ``asking`` are variables for one that has no such mode, set where the user has not
    set them. ``files`` is whether it may read and write files by us.
    """

    name: str
    title: str
    commands: tuple[tuple[str, ...], ...]
    install: str
    login: str
    mode: str = ""
    asking: Mapping[str, str] = MappingProxyType({})
    env: Mapping[str, str] = MappingProxyType({})
    """Variables that it has in any case."""
    files: bool = True


_OPENCODE_ASKS = (
    '{"*":"ask","todowrite":"allow","todoread":"allow","task":"allow","skill":"allow",'
    '"question":"deny","plan_enter":"deny","plan_exit":"deny"}'
)
"""What it reads and searches is asked for as well: that is allowed at once, and out of bounds where its path is."""

PROFILES = {
    profile.name: profile
    for profile in (
        Profile(
            "claude",
            "Claude Code",
            (("claude-agent-acp",), ("claude-code-acp",)),
            "npm install -g @agentclientprotocol/claude-agent-acp",
            "run `claude` once and type /login, or set ANTHROPIC_API_KEY",
            mode="default",
        ),
        Profile(
            "codex",
            "Codex",
            (("codex-acp",),),
            "npm install -g @agentclientprotocol/codex-acp",
            "run `codex login`, or set OPENAI_API_KEY",
            mode="read-only",
        ),
        Profile(
            "gemini",
            "Gemini CLI",
            (("gemini", "--acp"),),
            "npm install -g @google/gemini-cli",
            "run `gemini` once and choose how to log in, or set GEMINI_API_KEY",
            mode="default",
            files=False,  # it takes the answer that a file is not there for a failure, so it could make none
        ),
        Profile(
            "opencode",
            "OpenCode",
            (("opencode", "acp"),),
            "npm install -g opencode-ai",
            "run `opencode auth login`, or set a provider's key",
            asking={"OPENCODE_PERMISSION": _OPENCODE_ASKS},
        ),
        Profile(
            "qwen",
            "Qwen Code",
            (("qwen", "--acp"),),
            "npm install -g @qwen-code/qwen-code",
            "run `qwen` once and log in, or set OPENAI_API_KEY and OPENAI_BASE_URL",
            mode="default",
        ),
        Profile(
            "vibe",
            "Mistral Vibe",
            (("vibe-acp",),),
            "pip install mistral-vibe",
            "run `vibe --setup`, or set MISTRAL_API_KEY",
            mode="ask",
        ),
    )
}


class AgentMissing(LookupError):
    """There is no such agent here; the message says what to do about it."""


def profiles(own: Mapping[str, AgentSettings]) -> dict[str, Profile]:
    """The agents that are known by name: those of the configuration first, which may say another thing of one of ours.

    Raises AgentMissing for one whose table does not say how to start it.
    """
    return {**{name: _configured(name, settings) for name, settings in own.items()}, **{
        name: profile for name, profile in PROFILES.items() if name not in own
    }}  # fmt: skip


def _configured(name: str, settings: AgentSettings) -> Profile:
    known = PROFILES.get(name)
    try:
        words = shlex.split(settings.command)
    except ValueError as error:
        raise AgentMissing(f"`agents.{name}.command` is no command line: {error}") from None
    if not words and known is None:
        raise AgentMissing(f"[agents.{name}] has no `command`, and sparrow knows no such agent")
    known = known or Profile(name, name, (), "install it, or mend its command in config.toml", "see its documentation")
    return known._replace(
        commands=(tuple(words),) if words else known.commands,
        login=settings.login or known.login,
        env={**known.env, **settings.env},
    )


def command_of(
    agent: str | None, which: Callable[[str], str | None], own: Mapping[str, AgentSettings]
) -> tuple[list[str], Profile | None]:
    """The command line of an agent, and its profile where it has one.

    ``agent`` is a profile's name or a command line; None is the first profile whose program is there. ``which`` finds a
    program; ``own`` are the configuration's agents. Raises AgentMissing.
    """
    known = profiles(own)
    if agent is None:
        for profile in known.values():
            command = installed(profile, which)
            if command is not None:
                return command, profile
        names = ", ".join(known)
        raise AgentMissing(f"no agent is installed; install one of {names}, such as: {PROFILES['opencode'].install}")
    if agent in known:
        command = installed(known[agent], which)
        if command is None:
            raise AgentMissing(f"the agent `{agent}` is not installed: {known[agent].install}")
        return command, known[agent]
    try:
        words = shlex.split(agent)
    except ValueError as error:
        raise AgentMissing(f"the agent `{agent}` is no command line: {error}") from None
    if not words or which(words[0]) is None:
        raise AgentMissing(
            f"there is no agent and no program `{agent}`; known are {', '.join(known)}, or give a command that speaks ACP"
        )
    return words, None


def installed(profile: Profile, which: Callable[[str], str | None]) -> list[str] | None:
    """How the agent is started here; None where it is not installed."""
    return next((list(command) for command in profile.commands if which(command[0]) is not None), None)
