"""What `sparrow doctor` looks at that is not sparrow's own: the kernel, cgroups, systemd, the shell."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sparrow_mp.paths import Places

_PATIENCE_S = 5.0
_COMPLETIONS = {
    "bash": (
        "~/.local/share/bash-completion/completions/sparrow",
        "sparrow completion bash > ~/.local/share/bash-completion/completions/sparrow",
    ),
    "fish": (
        "~/.config/fish/completions/sparrow.fish",
        "sparrow completion fish > ~/.config/fish/completions/sparrow.fish",
    ),
}


@dataclass(frozen=True)
class Finding:
    """What one check found: ``state`` is ok, note or fail. A ``fail`` and most notes have a remedy."""

    check: str
    state: str
    words: str
    remedy: str = ""


def machine_checks(where: Places) -> list[Callable[[], Iterator[Finding]]]:
    """The checks, to be called one after another."""
    return [_kernel, lambda: _cgroups(where), _systemd, _completion]


def _kernel() -> Iterator[Finding]:
    """What ending a process tree, and nobody else's process, takes."""
    name = f"Linux {platform.release()}"
    missing = []
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        missing.append("pidfds (Linux 5.3)")
    own = os.getpid()
    if not Path(f"/proc/{own}/task/{own}/children").exists():
        missing.append("lists of children in /proc (CONFIG_PROC_CHILDREN)")
    if missing:
        yield Finding(
            "kernel", "fail", f"{name} has no {' and no '.join(missing)}: what a run has started may be left behind",
            "use a newer kernel, or one that is built with it",
        )  # fmt: skip
    else:
        yield Finding("kernel", "ok", name)


def _cgroups(where: Places) -> Iterator[Finding]:
    from sparrow_mp.run.cgroup import delegated

    try:
        runs = [path.parent for path in where.runs.glob("*/cgroup")]
    except OSError:
        runs = []
    if runs or delegated() is not None:
        yield Finding("cgroups", "ok", "one for each run")
    else:
        words = "none is delegated here: trees are ended without, and memory is counted process by process"
        yield Finding("cgroups", "ok", words)


def _systemd() -> Iterator[Finding]:
    """The user unit, where there is one. `sparrow service status` knows more."""
    if shutil.which("systemctl") is None:
        yield Finding("systemd", "ok", "not here; the supervisor is started by whoever needs it first")
        return
    shown = _unit()
    if shown is None:
        yield Finding("systemd", "ok", "no session of it for this user")
        return
    if shown.get("LoadState") != "loaded":
        state = "fail" if shown.get("LoadState") in ("error", "bad-setting") else "ok"
        remedy = "see: systemctl --user status sparrow" if state == "fail" else ""
        yield Finding("systemd", state, f"no unit sparrow.service is loaded ({shown.get('LoadState', '?')})", remedy)
        return
    if shown.get("NeedDaemonReload") == "yes":
        words = "the unit sparrow.service has changed since it was loaded"
        yield Finding("systemd", "note", words, "systemctl --user daemon-reload")
    if shown.get("ActiveState") == "failed":
        yield Finding("systemd", "fail", "sparrow.service has failed", "see why: systemctl --user status sparrow")
    else:
        words = f"sparrow.service is {shown.get('UnitFileState') or 'loaded'} and {shown.get('ActiveState')}"
        yield Finding("systemd", "ok", words)
    if not _lingers():
        words = "the user's systemd, and sparrow with it, ends when you log out"
        yield Finding("systemd", "note", words, "to have it stay: loginctl enable-linger")


def _unit() -> dict[str, str] | None:
    """What systemd says of sparrow.service; None where it does not answer."""
    wanted = "LoadState,ActiveState,UnitFileState,NeedDaemonReload"
    try:
        said = subprocess.run(
            ["systemctl", "--user", "show", "sparrow.service", f"--property={wanted}"],
            check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_PATIENCE_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    if said.returncode:
        return None
    return dict(line.split("=", 1) for line in said.stdout.splitlines() if "=" in line)


def _lingers() -> bool:
    import pwd

    try:
        return Path("/var/lib/systemd/linger", pwd.getpwuid(os.geteuid()).pw_name).exists()
    except KeyError:
        return False


def _completion() -> Iterator[Finding]:
    """For the shells whose place for it is known."""
    shell = Path(os.environ.get("SHELL", "")).name
    if shell in _COMPLETIONS:
        place, command = _COMPLETIONS[shell]
        if Path(place).expanduser().exists():
            yield Finding("completion", "ok", f"for {shell}")
        else:
            yield Finding("completion", "ok", f"none for {shell} in its usual place; to have it: {command}")
