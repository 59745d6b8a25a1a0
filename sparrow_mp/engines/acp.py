"""Engine ``acp``: an agent that speaks the Agent Client Protocol (version 1, agentclientprotocol.com) over its stdin and stdout.

The task is its first prompt. What is injected meanwhile waits until the turn has ended (or has it cancelled), and is the next
prompt; there are never two at once. When nothing waits any more the run has ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from sparrow_mp.agents import AgentMissing, Profile, command_of
from sparrow_mp.config import load_config
from sparrow_mp.errors import SparrowError
from sparrow_mp.events import Custom, Error, Output
from sparrow_mp.paths import find_places
from sparrow_mp.run.context import CannotRun, Interrupted, RunContext
from sparrow_mp.settings import McpSettings

if TYPE_CHECKING:
    from acp.client.connection import ClientSideConnection

_T = TypeVar("_T")

_GREETING_S = 60.0
"""Some agents fetch half of themselves when they are first started."""
_CANCEL_S = 5.0
_END_S = 2.0
_SILENCE_S = 0.3
_MOST_LISTENING = 100
_AUTH_REQUIRED = -32000
_LONGEST_WORDS = 2000
SESSION = "acp_session"
"""The name of the event that keeps the agent's own id for the session, with which it can go on in another run."""


class AcpEngine:
    """Starts the agent that ``--agent`` names, or that is installed."""

    def command(self, _: RunContext) -> None:
        """There is none to execute in place of this process: it is the agent's other end."""

    def find(self, run: RunContext) -> Any:
        """What drives the run. Raises CannotRun where the extra or the agent is missing, or the configuration is faulty."""
        try:
            import acp  # noqa: F401  only to see whether it is there: it takes half a second
        except ImportError:
            raise CannotRun("the engine `acp` needs its library: pip install 'sparrow-mp[acp]'") from None
        try:
            config = load_config(find_places(os.environ, run.config).config)
            command, profile = command_of(None if run.agent == "acp" else run.agent, shutil.which, config.agents)
        except (AgentMissing, SparrowError) as error:
            raise CannotRun(str(error)) from None

        async def drive(run: RunContext) -> str:
            return await _drive(run, command, profile, config.mcp)

        return drive


class _Failed(Exception):
    """The agent cannot go on; the message is for people."""


async def _drive(
    run: RunContext, command: list[str], profile: Profile | None, servers: Mapping[str, McpSettings]
) -> str:
    logging.disable(logging.CRITICAL)  # the library logs tracebacks of what an agent says wrong, into the run's output
    try:
        async with _agent(run, command, profile) as process:
            return await _Conversation(run, process, command[0], profile, servers).hold()
    except _Failed as failed:
        run.emit(Error(message=str(failed)[:_LONGEST_WORDS]))
        raise SystemExit(1) from None


@contextlib.asynccontextmanager
async def _agent(
    run: RunContext, command: list[str], profile: Profile | None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The agent's process, which is gone afterwards. What it prints to standard error is the run's output."""
    from sparrow_mp.engines.acp_transport import LONGEST_LINE

    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            cwd=run.workspace,
            env=dict(os.environ) if profile is None else {**profile.asking, **os.environ, **profile.env},
            limit=LONGEST_LINE,
            process_group=0,  # an interruption is said to it in its own words first, and not by SIGTERM to our group
        )
    except OSError as error:
        raise _Failed(f"the agent `{command[0]}` cannot be started: {error.strerror}") from None
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()  # which is how an agent over stdio is told to end
        # Waiting may last longer than the agent: until nobody holds its output. That is not what is waited for.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _END_S)
        if process.returncode is None:
            process.kill()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _END_S)


class _Conversation:
    """One session with the agent."""

    def __init__(
        self,
        run: RunContext,
        process: asyncio.subprocess.Process,
        name: str,
        profile: Profile | None,
        servers: Mapping[str, McpSettings],
    ) -> None:
        from sparrow_mp.engines.acp_client import Client

        self._run = run
        self._process = process
        self._name = os.path.basename(name)
        self._profile = profile
        self._wanted = servers
        self._servers: list[Any] = []
        self._client = Client(run)
        self._session = ""
        self._fault: Callable[[], str] = str

    async def hold(self) -> str:
        """Prompt until nothing waits any more; why the last turn ended. Raises _Failed."""
        from acp.client.connection import ClientSideConnection

        from sparrow_mp.engines.acp_transport import Transport

        client: Any = self._client  # less than the library's own type: what is not there the agent hears
        transport = Transport(self._process, self._garbage)
        self._fault = lambda: transport.fault
        connection = ClientSideConnection(client, transport)
        try:
            await self._greet(connection)
            prompts = [self._run.task]
            reason = "end_turn"
            while prompts:
                reason = await self._turn(connection, "\n\n".join(prompts))
                prompts = list(self._run.messages())
            return reason
        finally:
            self._client.flush()
            await connection.close()
            await self._client.close()

    def _garbage(self, line: str) -> None:
        """The agent has written what is no message."""
        self._client.flush()
        self._run.emit(Output(stream="stdout", text=line))

    async def _greet(self, connection: ClientSideConnection) -> None:
        from acp.schema import ClientCapabilities, FileSystemCapabilities, Implementation

        from sparrow_mp import __version__
        from sparrow_mp.engines.acp_mcp import mcp_servers

        files = self._profile is None or self._profile.files
        greeting = connection.initialize(
            protocol_version=1,
            client_capabilities=ClientCapabilities(
                fs=FileSystemCapabilities(read_text_file=files, write_text_file=files), terminal=True
            ),
            client_info=Implementation(name="sparrow", version=__version__),
        )
        told = await self._answer(greeting, "does not introduce itself", _GREETING_S)
        if told.protocol_version != 1:
            raise _Failed(f"the agent `{self._name}` speaks version {told.protocol_version} of ACP; sparrow speaks 1")
        capabilities = told.agent_capabilities
        can_resume = capabilities is not None and getattr(capabilities.session_capabilities, "resume", None) is not None
        can_load = capabilities is not None and bool(capabilities.load_session)
        self._servers = mcp_servers(self._wanted, capabilities, self._run.emit)
        if self._run.session is None:
            new = connection.new_session(cwd=str(self._run.workspace), mcp_servers=self._servers)
            session = await self._answer(new, "does not begin a session", _GREETING_S)
            self._session, modes = session.session_id, session.modes
            if len(self._session) > _LONGEST_WORDS:
                raise _Failed(f"the agent `{self._name}` names its session with {len(self._session)} characters")
        else:
            self._session = self._run.session
            modes = await self._recall(connection, can_resume=can_resume, can_load=can_load)
        await self._have_it_ask(connection, modes)
        self._run.emit(Custom(name=SESSION, data={"id": self._session, "can_load": can_load or can_resume}))

    async def _recall(self, connection: ClientSideConnection, *, can_resume: bool, can_load: bool) -> Any:
        """Have the agent go on with a session that it has kept; the modes that this has."""
        if not can_resume and not can_load:
            raise _Failed(f"the agent `{self._name}` keeps no sessions; begin anew: sparrow run -e acp …")
        again = connection.resume_session if can_resume else connection.load_session
        self._client.recalls = True  # loading a session tells all of it again
        asked = again(cwd=str(self._run.workspace), session_id=self._session, mcp_servers=self._servers)
        session = await self._answer(asked, f"does not find its session {self._session}", _GREETING_S)
        if not can_resume:
            await self._listen()
        self._client.recalls = False
        return getattr(session, "modes", None)

    async def _have_it_ask(self, connection: ClientSideConnection, modes: Any) -> None:
        """Before it does something, whatever its own default is: what it may is for the run's autonomy to say."""
        wanted = self._profile.mode if self._profile is not None else ""
        if not wanted or modes is None or modes.current_mode_id == wanted:
            return
        if all(mode.id != wanted for mode in modes.available_modes):
            words = (
                f"sparrow: `{self._name}` has no mode `{wanted}` any more; what it does without asking is not judged"
            )
            self._run.emit(Output(stream="stderr", text=words))
            return
        asked = connection.set_session_mode(mode_id=wanted, session_id=self._session)
        await self._answer(asked, f"does not go into its mode {wanted}", _GREETING_S)

    async def _listen(self) -> None:
        """Until the agent is silent: some have answered before they have told all of a session again."""
        for _ in range(_MOST_LISTENING):
            heard = self._client.recalled
            await asyncio.sleep(_SILENCE_S)
            if self._client.recalled == heard:
                return

    async def _turn(self, connection: ClientSideConnection, text: str) -> str:
        """One prompt and all that comes of it; why the turn ended."""
        from acp.helpers import text_block

        turn = asyncio.ensure_future(connection.prompt(self._session, [text_block(text)]))
        hurry = asyncio.ensure_future(self._hurry(connection))
        try:
            done = await self._answer(asyncio.shield(turn), "does not end its turn", None)
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):  # whatever it makes of it, its process is ended
                await asyncio.wait_for(self._cancel(connection, turn), _CANCEL_S)
            turn.cancel()
            self._client.flush()
            raise
        finally:
            hurry.cancel()
        self._client.turn_ended(done)
        if done.stop_reason in _REASONS:
            raise _Failed(f"the agent ended its turn: {_REASONS[done.stop_reason]}")
        return str(done.stop_reason)

    async def _hurry(self, connection: ClientSideConnection) -> None:
        """Have the agent end its turn when a message comes that is not to wait for that."""
        with contextlib.suppress(Interrupted, ConnectionError):
            await self._run.urgent_async()
            self._client.withdraw()
            await connection.cancel(self._session)

    async def _cancel(self, connection: ClientSideConnection, turn: asyncio.Future[Any]) -> None:
        """Have the agent end its turn, which it has little time for: what it still says of it is recorded."""
        self._client.withdraw()
        await connection.cancel(self._session)
        await asyncio.shield(turn)

    async def _answer(self, answer: Awaitable[_T], failing: str, seconds: float | None) -> _T:
        """What the agent answers. Raises _Failed where it does not, or says no."""
        from acp.exceptions import RequestError

        try:
            return await asyncio.wait_for(answer, seconds)
        except TimeoutError:
            raise _Failed(f"the agent `{self._name}` {failing} within {seconds:g} s") from None
        except RequestError as error:
            raise _Failed(self._refusal(error)) from None
        except ConnectionError:
            raise _Failed(await self._its_end()) from None
        except (ValueError, TypeError) as error:  # pydantic's: an answer that is none
            raise _Failed(f"the agent `{self._name}` answers what is not ACP: {str(error).splitlines()[0]}") from None

    def _refusal(self, error: Any) -> str:
        if error.code == _AUTH_REQUIRED:
            how = self._profile.login if self._profile is not None else "see its own documentation"
            return f"the agent `{self._name}` needs a login: {how}"
        details = error.data.get("details") if isinstance(error.data, dict) else None
        return f"the agent `{self._name}` says: {error}{f' ({details})' if details else ''}"

    async def _its_end(self) -> str:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), _END_S)
        if self._fault():
            return f"the agent `{self._name}` {self._fault()}"
        code = self._process.returncode
        how = "closed its output" if code is None else f"ended (exit code {code})"
        return f"the agent `{self._name}` {how} in the midst of its work"


_REASONS = {
    "refusal": "it refuses to go on",
    "max_tokens": "it has no tokens left",
    "max_turn_requests": "it has made as many requests as it may in a turn",
}
