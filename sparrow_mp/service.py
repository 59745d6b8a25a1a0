"""The user's systemd, seen from the command line: whether it is there, where units go, and what ours say."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from sparrow_mp.errors import StateError

UNIT = "sparrow.service"
RUNS = "sparrow-runs.service"
UNITS = (UNIT, RUNS, "sparrow-keep.target")
MARK = (
    "# Written by `sparrow service install`, which overwrites it; for changes of your own: systemctl --user edit UNIT\n"
)
_CARRIED = ("XDG_CONFIG_HOME", "XDG_STATE_HOME")
_PATIENCE_S = 100.0


def unit_folder(env: Mapping[str, str]) -> Path:
    """Where this user's own units are."""
    return _home(env, "XDG_CONFIG_HOME", ".config") / "systemd" / "user"


def unit_file(env: Mapping[str, str]) -> Path | None:
    """Our supervisor's unit, whoever has installed it; None where nobody has."""
    folders = [
        unit_folder(env),
        Path("/etc/systemd/user"),
        _home(env, "XDG_DATA_HOME", ".local/share") / "systemd" / "user",
        Path("/usr/local/lib/systemd/user"),
        Path("/usr/lib/systemd/user"),
    ]
    return next((folder / UNIT for folder in folders if (folder / UNIT).exists()), None)


def _home(env: Mapping[str, str], variable: str, usual: str) -> Path:
    home = Path(env.get("HOME") or os.path.expanduser("~"))
    return Path(env.get(variable) or home / usual)


def manager(env: Mapping[str, str]) -> Path | None:
    """The runtime folder (XDG_RUNTIME_DIR) of this user's systemd, where that can be reached and asked."""
    if shutil.which("systemctl") is None:
        return None
    # cron and su set no XDG_RUNTIME_DIR, and yet there may be a systemd.
    folder = Path(env.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(1.0)
        try:
            connection.connect(str(folder / "systemd" / "private"))
        except OSError:
            return None
    return folder


def why_unreachable() -> str:
    """What to say where there is no ``manager``: the cause and the remedy."""
    if shutil.which("systemctl") is None:
        return (
            "systemd is not on this machine (there is no systemctl on PATH); sparrow needs none: "
            "every command that needs a supervisor starts one in the background"
        )
    return (
        "your systemd cannot be reached from here (nothing listens in $XDG_RUNTIME_DIR/systemd/private); log in with a session"
        f" of its own, or have it always run: sudo loginctl enable-linger {user()}"
    )


def user() -> str:
    """The name of this user."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def systemctl(runtime: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Ask the user's systemd for something. Raises StateError where it takes too long."""
    command = ["systemctl", "--user", "--no-ask-password", "--no-pager", *args]
    try:
        return subprocess.run(
            command,
            check=False,
            env={**os.environ, "XDG_RUNTIME_DIR": str(runtime)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise StateError(f"`{' '.join(command)}` failed: {error}") from None


def render(name: str, env: Mapping[str, str]) -> str:
    """What the unit says for this interpreter. Raises StateError where it is not known, or the template is missing."""
    if not sys.executable:
        raise StateError("this program does not know its Python, so no unit can start it; run it by its `sparrow`")
    carried = [f"Environment={_quoted(f'{variable}={env[variable]}')}" for variable in _CARRIED if env.get(variable)]
    text = _template(name).read_text(encoding="utf-8")
    text = text.replace("@ENVIRONMENT@\n", "".join(f"{line}\n" for line in carried))
    return MARK + text.replace("@PYTHON@", _quoted(sys.executable))


def _template(name: str) -> Path:
    """In a wheel they lie beside this file, in a checkout where its readers look for them."""
    here = Path(__file__).resolve().parent
    for path in (here / "systemd" / name, here.parent / "systemd" / name):
        if path.is_file():
            return path
    raise StateError(f"the template of {name} is missing from this installation of sparrow; install it again")


def _quoted(text: str) -> str:
    """One word of a unit file, systemd.syntax(7) and systemd.unit(5): quoted, its `%` no specifier."""
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{text}"'
