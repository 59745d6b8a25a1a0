"""Where everything lies, and whether those places are safe to use."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sparrow_mp.errors import StateError
from sparrow_mp.regular import open_regular

UNIX_ADDRESS_LIMIT = 107
"""The longest path of a Unix socket, in bytes (``sun_path`` less its closing NUL)."""


@dataclass(frozen=True)
class Places:
    """The folders that one supervisor owns; everything else has its name relative to them."""

    state: Path
    runtime: Path
    config: Path

    @property
    def lock(self) -> Path:
        """Held with flock by the supervisor: the one check for a single instance."""
        return self.state / "lock"

    @property
    def address_file(self) -> Path:
        """Where a supervisor tells its clients its addresses, as JSON."""
        return self.state / "supervisor.json"

    @property
    def index(self) -> Path:
        """The SQLite file that the runs are found by."""
        return self.state / "index.db"

    @property
    def jobs(self) -> Path:
        """The jobs: written by the command line and by hand."""
        return self.state / "jobs.toml"

    @property
    def good_jobs(self) -> Path:
        """The jobs as they were when they last made sense."""
        return self.state / "jobs.good.toml"

    @property
    def schedules(self) -> Path:
        """What the supervisor remembers of the jobs, as JSON."""
        return self.state / "schedules.json"

    @property
    def log(self) -> Path:
        """The log of a supervisor that was started in the background."""
        return self.state / "supervisor.log"

    @property
    def transcripts(self) -> Path:
        """The folder with one folder for each run's record."""
        return self.state / "transcripts"

    @property
    def allowed(self) -> Path:
        """What has been allowed for always: a line for each workspace, tool and risk."""
        return self.state / "allowed.jsonl"

    @property
    def runs(self) -> Path:
        """The working folders of the runs that have not ended."""
        return self.state / "runs"

    @property
    def unix_socket(self) -> Path:
        """The default place of the NDJSON Unix socket."""
        return self.state / "sparrow.sock"

    @property
    def control(self) -> str:
        """The address of the control socket."""
        return f"ipc://{self.runtime / 'control.sock'}"

    @property
    def events(self) -> str:
        """The address of the event socket."""
        return f"ipc://{self.runtime / 'events.sock'}"

    def zygote_socket(self, fingerprint: str) -> Path:
        """Where the zygote of one sparrow listens; after an upgrade there may be two for a while."""
        return self.runtime / f"zygote-{fingerprint}.sock"

    @property
    def zygote_log(self) -> Path:
        """What the zygotes and the monitors have to say that is for no client."""
        return self.state / "zygote.log"

    @property
    def endpoints(self) -> Path:
        """The folder of the runs' PAIR sockets; its name is short because a socket's address is."""
        return self.runtime / "r"

    def transcript(self, run: str) -> Path:
        """The folder of a run's record."""
        return self.transcripts / run

    def run_folder(self, run: str) -> Path:
        """The working folder of a run that has not ended."""
        return self.runs / run

    def endpoint(self, run: str) -> str:
        """The address of a run's PAIR socket: 16 hex digits of its id, so that no two runs ever share one."""
        return f"ipc://{self.endpoints / run.replace('-', '')[:16]}"


def find_places(env: Mapping[str, str] | None = None, config: Path | None = None) -> Places:
    """Where state, runtime and configuration are, from the environment. Makes nothing."""
    env = os.environ if env is None else env
    home = Path(env.get("HOME") or os.path.expanduser("~"))
    default_state = Path(env.get("XDG_STATE_HOME") or home / ".local" / "state") / "sparrow"
    state = Path(env.get("SPARROW_STATE_DIR") or default_state).absolute()
    if env.get("SPARROW_RUNTIME_DIR"):
        runtime = Path(env["SPARROW_RUNTIME_DIR"]).absolute()
    elif env.get("XDG_RUNTIME_DIR") and state == default_state.absolute():
        runtime = Path(env["XDG_RUNTIME_DIR"]).absolute() / "sparrow"
    else:
        runtime = state / "run"
    if config is None:
        default_config = Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "sparrow" / "config.toml"
        config = Path(env.get("SPARROW_CONFIG") or default_config)
    return Places(state, runtime, config.absolute())


def secure_folder(path: Path) -> None:
    """Make the folder private to us (0700), or refuse it.

    Raises StateError where it is a symbolic link, somebody else's, open to others, or cannot be made or written; and where
    another user could put something else in its place.
    """
    try:
        for above in reversed(path.parents):
            if not above.exists():
                above.mkdir(mode=0o755, exist_ok=True)  # whatever the umask: nobody else may rename what is in it
        try:
            path.mkdir(mode=0o700)
        except FileExistsError:
            pass
        found = path.lstat()
    except OSError as error:
        raise StateError(f"cannot make the folder {path}: {error.strerror}; choose another place") from None
    if stat.S_ISLNK(found.st_mode):
        raise StateError(f"{path} is a symbolic link; sparrow uses only a folder of its own: name the real one")
    if not stat.S_ISDIR(found.st_mode):
        raise StateError(f"{path} is not a folder; move it away or choose another place")
    if found.st_uid != os.geteuid():
        raise StateError(
            f"{path} belongs to user {found.st_uid}, not to you ({os.geteuid()}); choose a folder of your own"
        )
    _check_way(path)
    if found.st_mode & 0o077:
        raise StateError(
            f"{path} is open to other users (mode {stat.S_IMODE(found.st_mode):04o}); close it: chmod 700 {path}"
        )
    if not os.access(path, os.W_OK | os.X_OK):
        raise StateError(f"{path} is not writable; make it so (chmod 700 {path}) or choose another place")


def _check_way(path: Path) -> None:
    """Raise StateError where a folder above lets every user rename what is in it, or a link on the way is another user's."""
    trusted = {0, os.geteuid(), os.stat("/").st_uid}  # in a user namespace root may have another number
    for above in path.parents:
        found = above.lstat()
        if stat.S_ISLNK(found.st_mode) and found.st_uid not in trusted:
            raise StateError(
                f"{path} lies behind {above}, a symbolic link of user {found.st_uid}; name the real folder instead"
            )
    real = path.parent.resolve()
    for above in (real, *real.parents):
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise StateError(
                f"every user can put another folder in the place of {path}, since {above} is open to all (mode"
                f" {stat.S_IMODE(mode):04o}); close that (chmod o-w {above}) or choose another place"
            )


def check_files(*paths: Path) -> None:
    """Raise StateError where something else than a plain file of ours has a name that such a file is to have."""
    for path in paths:
        try:
            found = path.lstat()
        except OSError:
            continue  # whoever opens it says why it cannot be
        if stat.S_ISLNK(found.st_mode) or not stat.S_ISREG(found.st_mode):
            kind = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no plain file"
            raise StateError(f"{path} is {kind}; sparrow uses only a file of its own there: move that away")


def check_address(path: Path, what: str) -> None:
    """Raise StateError where the path is too long for a Unix socket."""
    size = len(os.fsencode(path))
    if size > UNIX_ADDRESS_LIMIT:
        raise StateError(
            f"the path of {what} is too long for a Unix socket: {path} has {size} bytes, the limit is"
            f" {UNIX_ADDRESS_LIMIT}; set SPARROW_RUNTIME_DIR (or `[ndjson] unix`) to a shorter one"
        )


def supervisor_alive(places: Places) -> bool:
    """Whether some supervisor holds the state folder: its lock cannot be had."""
    try:
        fd = open_regular(places.lock)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EWOULDBLOCK, errno.EACCES)
    finally:
        os.close(fd)
    return False
