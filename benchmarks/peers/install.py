"""Getting the peers: PyPI's into an environment of their own, Debian's unpacked beside it. Made when first asked for."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from benchmarks.daemon import ROOT
from benchmarks.peers.peer import Unfit

_VERSIONS = Path(__file__).with_name("versions.toml")
_PLACE = ROOT / "benchmarks" / "out" / "peers"
_PATIENCE_S = 180


def pinned(source: str) -> dict[str, str]:
    """Name and version of each peer from ``pypi`` or ``debian``."""
    return dict(tomllib.loads(_VERSIONS.read_text(encoding="utf-8"))[source])


def program(name: str) -> Path:
    """A program of the peers from PyPI. Raises Unfit where it cannot be had."""
    place = _PLACE / "venv"
    wanted = [f"{package}=={version}" for package, version in pinned("pypi").items()]
    made_for = place / "made-for"
    if not made_for.exists() or made_for.read_text(encoding="utf-8").split() != wanted:
        shutil.rmtree(place, ignore_errors=True)
        _do(sys.executable, "-m", "venv", str(place))
        _do(str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted)
        made_for.write_text("\n".join(wanted), encoding="utf-8")
    return place / "bin" / name


def from_debian(package: str, name: str) -> Path:
    """A program of a Debian package: what is installed, else what can be downloaded. Raises Unfit where there is none."""
    if installed := shutil.which(name):
        return Path(installed)
    place = _PLACE / package
    path = place / "usr" / "bin" / name
    if not path.exists():
        if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
            raise Unfit(f"{name} is not installed, and this machine is not a Debian to take it from")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            _do("apt-get", "download", f"{package}={pinned('debian')[package]}", folder=place)
        except Unfit:
            _do("apt-get", "download", package, folder=place)
        _do("dpkg-deb", "--extract", str(next(place.glob("*.deb"))), str(place))
    return path


def on_path(name: str) -> Path:
    """A program of this machine. Raises Unfit where it is not installed."""
    found = shutil.which(name)
    if found is None:
        raise Unfit(f"{name} is not installed")
    return Path(found)


def version(*command: str) -> str:
    """The first line that a program says of its version; empty where it says nothing."""
    try:
        said = subprocess.run(command, capture_output=True, check=False, timeout=10, text=True).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return said.partition("\n")[0].strip()


def _do(*command: str, folder: Path | None = None) -> None:
    """A step of an installation. Raises Unfit, with its last words, where it fails."""
    try:
        done = subprocess.run(
            command,
            check=False,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE_S,
            text=True,
        )
    except (OSError, subprocess.TimeoutExpired) as reason:
        raise Unfit(f"it could not be installed: {reason}") from None
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip() or f"{command[0]} failed").splitlines()
        raise Unfit(f"it could not be installed: {words[-1]}")
