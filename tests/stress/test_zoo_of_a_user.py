"""L1 for somebody who is not root: without a right that others have not, nothing of any adversary is left."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.acceptance import test_ordinary_user
from tests.acceptance.test_ordinary_user import Person, person  # noqa: F401  a fixture
from tests.support import processes
from tests.support.stress import scaled
from tests.support.waiting import eventually
from tests.support.zoo import CAN_BUILD, PATIENT, build, living

pytestmark = [
    pytest.mark.stress,
    *[mark for mark in test_ordinary_user.pytestmark if mark.name != "acceptance"],
    pytest.mark.skipif(not CAN_BUILD, reason="needs a C compiler (gcc, libc6-dev)"),
]


def is_up(person: Person, run: str) -> bool:  # noqa: F811  no fixture here
    events = person.home / ".local/state/sparrow/transcripts" / run / "events.jsonl"
    return b'"text":"up"' in events.read_bytes()


def test_nothing_is_left_of_an_ordinary_users_runs(person: Person, tmp_path: Path, figure) -> None:  # noqa: F811
    zoo = build(tmp_path)
    trials = scaled(3)
    for number in range(trials):
        cue = person.home / "cue"
        programs = []
        for adversary in PATIENT:
            program = person.home / f"{adversary}-{number}"
            shutil.copy(zoo, program)
            os.chown(program, person.uid, person.uid)
            programs.append(program)
        begin = f'for each in {" ".join(PATIENT)}; do sparrow run -d -- "$HOME/$each-{number}" "$each" {cue}; done'
        runs = person.does("sh", "-c", begin).ok().out.split()
        assert len(runs) == len(PATIENT)
        eventually(lambda: all(is_up(person, run) for run in runs), 60, "the zoo")  # noqa: B023  called here only
        assert all(living(program) for program in programs)
        person.does("sparrow", "kill", "--now", *runs[::2]).ok()
        person.does("sparrow", "kill", "--grace", "0.2", *runs[1::2]).ok()
        assert [program.name for program in programs if living(program)] == []
    figure(f"L1: {len(PATIENT)} adversaries of an ordinary user, killed {trials} times: 0 processes left")


def test_what_has_become_another_users_is_told_and_kept_in_sight(person: Person, tmp_path: Path) -> None:  # noqa: F811
    """As after sudo: the run ends all the same, and says what of it goes on."""
    program = person.home / "another_users"
    shutil.copy(build(tmp_path), program)
    program.chmod(0o4755)  # root's, who builds it
    run = person.does("sparrow", "run", "-d", "--", str(program), "another_users", "cue").ok().out.strip()
    eventually(lambda: is_up(person, run), 30, "the adversary")
    person.does("sparrow", "kill", "--now", run).ok()
    (left,) = living(program)
    assert f"process {left} could not be ended" in person.does("sparrow", "ps", "-a", "--json").ok().out
    sentence = f"process {left} of a run that has ended cannot be ended"
    eventually(lambda: sentence in person.does("sparrow", "status").out, what="the problem")
    processes.kill(left)
    eventually(lambda: sentence not in person.does("sparrow", "status").ok().out, what="good news")
