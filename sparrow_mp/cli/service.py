"""`sparrow service`: the units of the user's systemd."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import click

from sparrow_mp import service
from sparrow_mp.cli.common import example, json_option, places
from sparrow_mp.cli.output import out, out_json, say
from sparrow_mp.errors import StateError
from sparrow_mp.paths import find_places, supervisor_alive

_WANTS = "default.target.wants"
_SHOWN: tuple[str, ...] = ("ActiveState", "SubState", "MainPID", "StatusText", "Result", "NRestarts")


@click.group(epilog=example("sparrow service install", "sparrow service status", "systemctl --user restart sparrow"))
def command() -> None:
    """Have the user's systemd keep the supervisor. No root is needed."""


@command.command(epilog=example("sparrow service install", "sparrow service install --linger --now"))
@click.option("--linger", is_flag=True, help="Also have it run while you are not logged in (loginctl enable-linger).")
@click.option("--now", is_flag=True, help="Also start it.")
def install(linger: bool, now: bool) -> None:
    """Write the units for this sparrow and enable them. Doing it again does no harm, and is right after it was moved."""
    if service.manager(os.environ) is None and not _has_systemctl():
        raise StateError(service.why_unreachable())
    folder = service.unit_folder(os.environ)
    changed = [name for name in service.UNITS if _write(folder / name, service.render(name, os.environ))]
    changed += [_WANTS] if _enable(folder) else []
    runtime = service.manager(os.environ)
    if runtime is None:
        say(f"{service.why_unreachable()}. The units are there, and count from its next start on")
    else:
        _checked(runtime, "daemon-reload")
        if UNIT_CHANGED & set(changed) and _is_active(runtime):
            say("the supervisor that runs is still the former one: systemctl --user restart sparrow (the runs go on)")
    if not changed:
        out(f"nothing to do: the units in {folder} are as they should be")
    _warn_of_settings()
    if linger:
        _linger()
    elif not _lingers():
        say(f"it ends when you log out; to have it stay: loginctl enable-linger {service.user()} (or --linger)")
    other = _in_the_background(runtime)
    if now:
        if runtime is None:
            raise StateError("it cannot be started from here")
        if other is not None:
            raise StateError(f"{other}; then: systemctl --user start sparrow")
        _checked(runtime, "start", service.UNIT)
        out("started")
    elif other is not None:
        say(other)
    elif runtime is not None and not _is_active(runtime):
        say("start it with: systemctl --user start sparrow; or any command that needs it does")


def _in_the_background(runtime: Path | None) -> str | None:
    """What to do about a supervisor that systemd has not started, and that holds the folder which the unit needs."""
    if runtime is None or _is_active(runtime):
        return None
    held = find_places({name: value for name, value in os.environ.items() if not name.startswith("SPARROW_")})
    if not supervisor_alive(held):
        return None
    return (
        "a supervisor runs in the background already, and the unit cannot start beside it: end it with"
        " `sparrow shutdown --keep-runs` (the runs go on, and the unit's takes them over)"
    )


UNIT_CHANGED = {service.UNIT, service.RUNS}


@command.command(epilog=example("sparrow service uninstall", "sparrow service uninstall --now"))
@click.option("--now", is_flag=True, help="Stop it first where it runs, which interrupts its runs.")
def uninstall(now: bool) -> None:
    """Remove the units. What runs is stopped only with --now."""
    folder = service.unit_folder(os.environ)
    runtime = service.manager(os.environ)
    if runtime is not None and (_is_active(runtime) or _is_active(runtime, service.RUNS)):
        if not now:
            raise StateError(
                "the supervisor or its runs are alive under systemd: end them with `systemctl --user stop sparrow"
                " sparrow-runs`, or give --now; both interrupt the runs"
            )
        _checked(runtime, "stop", service.UNIT, service.RUNS)
        out("stopped")
    removed = False
    for path in (folder / _WANTS / service.UNIT, *(folder / name for name in service.UNITS)):
        if path.is_symlink() or _is_ours(path):
            _remove(path)
            removed = True
            out(f"removed {path}")
        elif path.exists():
            say(f"{path} was not written by sparrow and stays")
    if not removed:
        out(f"nothing to do: no unit of sparrow's in {folder}")
    if runtime is not None and removed:
        _checked(runtime, "daemon-reload")
        service.systemctl(runtime, "reset-failed", service.UNIT, service.RUNS)  # as a rule neither has failed


@command.command(epilog=example("sparrow service status", "sparrow service status --json | jq -r .state"))
@json_option
def status(as_json: bool) -> None:
    """Show whether the units are installed, and what systemd says of them. Exits 1 where they are not."""
    told = _look()
    if as_json:
        out_json(told)
    else:
        for name, value in told.items():
            if value is not None and value != []:
                out(f"{name.replace('_', ' '):<12} {_words(value)}")
    if not told["installed"]:
        raise click.exceptions.Exit(1)


def _look() -> dict[str, Any]:
    path = service.unit_file(os.environ)
    runtime = service.manager(os.environ)
    told: dict[str, Any] = {"installed": path is not None, "unit": str(path) if path else None, "problems": []}
    told["current"] = _is_current(path) if path else None
    told["enabled"] = (path.parent / _WANTS / service.UNIT).exists() if path else False
    told["linger"] = _lingers()
    told["systemd"] = runtime is not None
    if runtime is None:
        told["problems"].append(service.why_unreachable())
    elif path is not None:
        supervisor, runs = (_show(runtime, unit) for unit in (service.UNIT, service.RUNS))
        told["state"] = f"{supervisor['ActiveState']} ({supervisor['SubState']})"
        told["status"] = supervisor["StatusText"] or None
        told["pid"] = int(supervisor["MainPID"] or 0) or None
        told["restarts"] = int(supervisor["NRestarts"] or 0)
        told["runs"] = f"{runs['ActiveState']} ({runs['SubState']})"
        if supervisor["Result"] not in ("", "success"):
            told["problems"].append(f"it failed ({supervisor['Result']}): journalctl --user -u sparrow")
    if told["current"] is False:
        told["problems"].append("the units are not those of this sparrow: `sparrow service install` writes them anew")
    return told


def _words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


def _show(runtime: Path, unit: str) -> dict[str, str]:
    shown = _checked(runtime, "show", f"--property={','.join(_SHOWN)}", unit).stdout
    found: dict[str, str] = dict.fromkeys(_SHOWN, "")
    for line in shown.splitlines():
        name, _, value = line.partition("=")
        found[name] = value
    return found


def _is_active(runtime: Path, unit: str = service.UNIT) -> bool:
    return _show(runtime, unit)["ActiveState"] not in ("inactive", "failed", "")


def _is_current(path: Path) -> bool:
    return all(_read(path.parent / name) == service.render(name, os.environ) for name in service.UNITS)


def _has_systemctl() -> bool:
    import shutil

    return shutil.which("systemctl") is not None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _is_ours(path: Path) -> bool:
    return (_read(path) or "").startswith(service.MARK)


def _write(path: Path, text: str) -> bool:
    """Write a unit; False where it says that already. Raises StateError."""
    if _read(path) == text:
        return False
    if (path.exists() or path.is_symlink()) and not _is_ours(path):
        raise StateError(f"{path} is there and was not written by sparrow; move it away and try again")
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.write_text(text, encoding="utf-8")
        new.chmod(0o644)
        new.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from None
    out(f"wrote {path}")
    return True


def _enable(folder: Path) -> bool:
    link = folder / _WANTS / service.UNIT
    try:
        if link.is_symlink() and os.readlink(link) in (f"../{service.UNIT}", str(folder / service.UNIT)):
            return False
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(f"../{service.UNIT}")
    except OSError as error:
        raise _unwritable(link, error) from None
    out(f"enabled it: it starts when you log in ({link})")
    return True


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError as error:
        raise _unwritable(path, error) from None


def _unwritable(path: Path, error: OSError) -> StateError:
    return StateError(
        f"{path} cannot be written ({error.strerror}); make {path.parent} yours and writable, or set XDG_CONFIG_HOME"
    )


def _checked(runtime: Path, *args: str) -> subprocess.CompletedProcess[str]:
    done = service.systemctl(runtime, *args)
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise StateError(f"`systemctl --user {' '.join(args)}` failed: {said}")
    return done


def _warn_of_settings() -> None:
    named = sorted(name for name in os.environ if name.startswith("SPARROW_"))
    if named:
        say(
            f"{', '.join(named)} set here do not count for the unit: put settings into the file {places().config}, or into"
            " `systemctl --user edit sparrow` as Environment="
        )


def _lingers() -> bool:
    return Path("/var/lib/systemd/linger", service.user()).exists()


def _linger() -> None:
    if _lingers():
        return
    try:
        done = subprocess.run(
            ["loginctl", "--no-ask-password", "enable-linger"],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )
        said = "" if done.returncode == 0 else " ".join(done.stderr.split()) or f"exit code {done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        said = str(error)
    if said:
        raise StateError(
            f"lingering could not be switched on ({said}); an administrator can: sudo loginctl enable-linger {service.user()}"
        )
    out("lingering is on: it runs while you are not logged in")
