"""All of it works for somebody who is not root, and nobody else gets in."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import sparrow_mp
from tests.support.house import BIN, Done, House
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else"),
    pytest.mark.skipif(
        any(shutil.which(name) is None for name in ("useradd", "runuser", "unshare")),
        reason="needs useradd, runuser and unshare",
    ),
]


NEEDED = [Path(sys.base_prefix), Path(sys.prefix), Path(sparrow_mp.__file__).resolve().parents[1]]


def way_to(*needed: Path) -> str:
    """Shell commands that open a way to these folders for everybody, in a mount namespace: where a folder above one may not
    be entered (root's home folder, in which a version manager keeps its Pythons), another with only the needed takes its place.
    """
    blocked: dict[Path, list[Path]] = {}
    for path in needed:
        for above in reversed(path.parents):
            if not above.stat().st_mode & 0o001:
                blocked.setdefault(above, []).append(path)
                break
    lines = []
    for above, paths in blocked.items():
        lines += ["hold=$(mktemp -d)", f"mount --bind '{above}' $hold", f"mount -t tmpfs -o mode=755 tmpfs '{above}'"]
        for path in paths:
            lines += [f"mkdir -p '{path}'", f"mount --bind $hold/'{path.relative_to(above)}' '{path}'"]
        lines += ["umount -l $hold", "rmdir $hold"]
    return "".join(f"{line} && " for line in lines)


class Person:
    """A user of this machine, made for one test."""

    def __init__(self) -> None:
        self.name = f"sp{uuid.uuid4().hex[:10]}"
        self.home = Path(tempfile.mkdtemp(prefix="sp-", dir="/tmp"))
        subprocess.run(["useradd", "--no-create-home", "--home-dir", str(self.home), self.name], check=True, timeout=30)
        os.chown(self.home, self.uid, self.uid)

    @property
    def uid(self) -> int:
        return pwd.getpwnam(self.name).pw_uid

    def does(self, *command: str) -> Done:
        """Run a command as this person, with an environment as a login gives it."""
        env = {"PATH": f"{BIN}:/usr/bin:/bin", "HOME": str(self.home), "SPARROW_TCP": "127.0.0.1:0", "LANG": "C.UTF-8"}
        variables = [f"{name}={value}" for name, value in env.items()]
        person = ["runuser", "-u", self.name, "--", "env", "-i", *variables, *command]
        line = ["unshare", "--mount", "sh", "-c", f'{way_to(*NEEDED)} exec "$@"', "sh", *person]
        done = subprocess.run(line, cwd=self.home, capture_output=True, stdin=subprocess.DEVNULL, timeout=240)
        return Done(line, done.returncode, done.stdout, done.stderr)

    def processes(self) -> list[str]:
        """Everything that runs as this person; who has ended and waits for init to notice is no matter."""
        done = subprocess.run(
            ["ps", "-u", self.name, "-o", "stat=,pid=,args="], capture_output=True, text=True, timeout=20
        )
        return [line for line in done.stdout.splitlines() if not line.startswith("Z")]

    def leave(self) -> None:
        subprocess.run(["userdel", self.name], check=False, capture_output=True, timeout=30)
        shutil.rmtree(self.home, ignore_errors=True)


@pytest.fixture
def person() -> Iterator[Person]:
    person = Person()
    try:
        if person.does(str(BIN / "python"), "-c", "import sparrow_mp, sparrow_supervisor").code:
            pytest.skip("this checkout and its environment are not readable for other users")
        yield person
        person.does("sparrow", "shutdown", "--now")
        eventually(lambda: not person.processes(), what="the end of all that the person had started")
    finally:
        person.leave()


def test_the_whole_flow(person: Person):
    first = person.does("sparrow", "run", "--", "sh", "-c", "id -un; pwd").ok()
    assert first.out == f"{person.name}\n{person.home}\n"
    assert str(person.home / ".local/state/sparrow") in first.err
    run = person.does(
        "sparrow", "run", "-d", "--", "sh", "-c", "setsid sleep 1000 & echo up; read line; echo got $line"
    ).ok()
    name = run.out.strip()
    person.does("sparrow", "inject", name, "it").ok()
    person.does("sparrow", "wait", name).ok()
    assert "got it" in person.does("sparrow", "logs", name).ok().out
    assert not [line for line in person.processes() if "sleep 1000" in line]
    stubborn = person.does("sparrow", "run", "-d", "--", "sh", "-c", "trap '' TERM; while :; do sleep 0.02; done").ok()
    person.does("sparrow", "kill", "--grace", "0.2", stubborn.out.strip()).ok()
    assert person.does("sparrow", "wait", stubborn.out.strip()).code == 130
    person.does("sparrow", "doctor")
    person.does("sparrow", "shutdown").ok()
    assert person.processes() == []


def test_nobody_else_gets_in(house: House, person: Person):
    told = house.start()
    house.top.chmod(0o755)
    run = house.detach("--", "sh", "-c", "read line")
    for variable in ("SPARROW_STATE_DIR", "SPARROW_RUNTIME_DIR"):
        done = person.does("env", f"{variable}={house.env[variable]}", "sparrow", "run", "true")
        assert done.code not in (0, 2), done
        assert "Traceback" not in done.err
    for path in (told["unix"], told["control"].removeprefix("ipc://"), told["events"].removeprefix("ipc://")):
        code = f"import socket; socket.socket(socket.AF_UNIX).connect({path!r})"
        assert "PermissionError" in person.does(str(BIN / "python"), "-c", code).err
    host, port = told["tcp"].split(":")
    code = (
        f"import socket; s = socket.create_connection(({host!r}, {port})); s.settimeout(10); print(s.makefile().read())"
    )
    said = person.does(str(BIN / "python"), "-c", code).ok().out.strip()
    assert said.count("\n") == 0
    assert '"Error"' in said
    with socket.create_connection((host, int(port)), timeout=30) as ours:
        ours.sendall(
            f'{{"run":"{run}","since":0}}\n'.encode()
        )  # else it hears only what is said after it has been let in
        house.sparrow("inject", run, "x").ok()
        house.outcome(run)
        assert ours.recv(10)
