"""What has been allowed, for how long, and what no file can allow."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparrow_mp.allowed import Allowed, read_allowed, take_back
from sparrow_mp.run.permits import Permits


@pytest.fixture
def always(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir()
    return tmp_path / "state" / "allowed.jsonl"


def permits(tmp_path: Path, always: Path | None, workspace: str = "work") -> Permits:
    (tmp_path / workspace).mkdir(exist_ok=True)
    return Permits("trusted", tmp_path / workspace, always)


def supervised(tmp_path: Path, always: Path | None) -> Permits:
    return Permits("supervised", tmp_path, always)


def test_a_session_is_this_run_this_tool_this_risk(tmp_path: Path, always: Path) -> None:
    run = supervised(tmp_path, always)
    assert run.rule("write", "Mutating", []) == (None, "")
    assert run.settle("write", "Mutating", "AllowSession") == "AllowSession"
    assert run.rule("write", "Mutating", []) == ("AllowSession", "")
    assert run.rule("write", "Exec", []) == run.rule("edit", "Mutating", []) == (None, "")
    assert supervised(tmp_path, always).rule("write", "Mutating", []) == (None, "")
    assert run.rule("write", "Mutating", [".env"])[0] == "Deny", "a path is out of bounds all the same"


def test_once_is_once(tmp_path: Path) -> None:
    run = supervised(tmp_path, None)
    for decision in ("Allow", "AllowOnce", "Deny"):
        assert run.settle("write", "Mutating", decision) == decision
        assert run.rule("write", "Mutating", []) == (None, "")
    assert run.settle("write", "Mutating", "AskUser") == "Deny"


def test_what_is_destructive_is_asked_for_every_time(tmp_path: Path, always: Path) -> None:
    run = permits(tmp_path, always)
    assert run.settle("shell", "Destructive", "AllowAlways") == "AllowAlways"
    assert run.rule("shell", "Destructive", []) == (None, "")
    assert not always.exists()


def test_always_outlives_the_run(tmp_path: Path, always: Path) -> None:
    supervised(tmp_path, always).settle("write", "Mutating", "AllowAlways")
    supervised(tmp_path, always).settle("write", "Mutating", "AllowAlways")
    assert supervised(tmp_path, always).rule("write", "Mutating", []) == ("AllowAlways", "")
    assert len(always.read_text().splitlines()) == 1
    assert always.stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_damaged_allows_no_more_than_it_says(tmp_path: Path, always: Path) -> None:
    supervised(tmp_path, always).settle("write", "Mutating", "AllowAlways")
    always.write_bytes(b"nonsense\n\xff\n" + b"[" * 9999 + b"\n" + always.read_bytes() + b'{"workspace":"/"')
    assert supervised(tmp_path, always).rule("write", "Mutating", []) == ("AllowAlways", "")
    assert supervised(tmp_path, always).rule("edit", "Mutating", []) == (None, "")
    always.unlink()
    always.mkdir()
    run = supervised(tmp_path, always)
    assert run.settle("edit", "Mutating", "AllowAlways") == "AllowAlways"
    assert run.rule("edit", "Mutating", []) == ("AllowSession", "")


def test_a_path_counts_by_where_it_leads_and_by_its_name(tmp_path: Path, always: Path) -> None:
    run = permits(tmp_path, always)
    (tmp_path / "work" / "out").symlink_to("/etc")
    (tmp_path / "work" / "plain").write_text("")
    (tmp_path / "work" / ".env").symlink_to("plain")
    assert run.rule("write", "Mutating", ["plain", tmp_path / "work" / "sub" / "new"]) == ("Allow", "")
    for path in ("out/passwd", "out", ".env", "../x", "sub/../../x", "/etc/passwd"):
        assert run.rule("write", "Mutating", [path])[0] == "Deny", path


def test_no_run_allows_itself_anything(tmp_path: Path, always: Path) -> None:
    run = Permits("autonomous", tmp_path, always)
    assert run.rule("write", "Mutating", [always]) == ("Deny", f"{always.parent} is sparrow's own")


def test_what_is_taken_back_is_asked_for_again_and_may_be_allowed_again(tmp_path: Path, always: Path) -> None:
    supervised(tmp_path, always).settle("write", "Mutating", "AllowAlways")
    supervised(tmp_path, always).settle("shell", "Exec", "AllowAlways")
    here = str(tmp_path.resolve())
    assert read_allowed(always) == {Allowed(here, "write", "Mutating"), Allowed(here, "shell", "Exec")}
    take_back(always, [Allowed(here, "write", "Mutating")])
    run = supervised(tmp_path, always)
    assert run.rule("write", "Mutating", []) == (None, "")
    assert run.rule("shell", "Exec", []) == ("AllowAlways", "")
    run.settle("write", "Mutating", "AllowAlways")
    assert supervised(tmp_path, always).rule("write", "Mutating", []) == ("AllowAlways", "")


@pytest.mark.parametrize("left", [b"half a line", b'{"workspace":"/w","tool":"a","risk":"Exec"}'])
def test_a_last_line_without_its_end_takes_no_other_with_it(tmp_path: Path, always: Path, left: bytes) -> None:
    always.write_bytes(left)
    supervised(tmp_path, always).settle("write", "Mutating", "AllowAlways")
    assert supervised(tmp_path, always).rule("write", "Mutating", []) == ("AllowAlways", "")
    assert (Allowed("/w", "a", "Exec") in read_allowed(always)) == left.startswith(b"{")


def test_a_pipe_in_the_place_of_the_file_is_neither_read_nor_waited_for(tmp_path: Path, always: Path) -> None:
    os.mkfifo(always)
    run = supervised(tmp_path, always)
    assert run.rule("write", "Mutating", []) == (None, "")
    assert run.settle("write", "Mutating", "AllowAlways") == "AllowAlways"
