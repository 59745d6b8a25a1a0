"""The engine `agent` in its pieces: edits, paths, commands, retries, compaction, speech, secrets."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from sparrow_mp.engines.agent_files import ToolError, Workspace, replaced
from sparrow_mp.engines.agent_secrets import Redactor, without_keys
from sparrow_mp.engines.agent_shell import Tail, run_command
from sparrow_mp.engines.agent_speech import Speech
from sparrow_mp.engines.agent_tools import TOOLS, call_of, diff_of, schema_of
from sparrow_mp.events import Event, Message, ThinkingDelta, ToolUseProposed
from tests.support import processes
from tests.support.waiting import eventually

pytestmark = pytest.mark.unit


@pytest.fixture
def place(tmp_path: Path) -> Workspace:
    folder = tmp_path / "work"
    (folder / "src" / "deep").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret needle")
    (folder / ".env").write_text("needle=1")
    (folder / "a.txt").write_text("one\ntwo needle\nthree\n")
    (folder / "src" / "b.py").write_text("needle = 1\n")
    (folder / "src" / "deep" / "c.py").write_text("x = 2\n")
    (folder / "binary").write_bytes(b"needle\0")
    (tmp_path / "outside.txt").write_text("needle outside")
    (folder / "way_out").symlink_to(tmp_path / "outside.txt")
    (folder / "folder_out").symlink_to(tmp_path)
    (folder / "to_env").symlink_to(".env")
    (folder / "way_in").symlink_to("a.txt")
    return Workspace(folder)


# ── edits ──


@pytest.mark.parametrize(
    ("text", "old", "new", "everywhere", "after"),
    [
        ("abc", "b", "x", False, "axc"),
        ("b b", "b", "x", True, "x x"),
        ("a\r\nb", "a\r\n", "", False, "b"),
        ("aaa", "aa", "b", False, "ba"),
    ],
)
def test_an_edit_replaces_exactly(text: str, old: str, new: str, everywhere: bool, after: str) -> None:
    assert replaced(text, old, new, everywhere=everywhere) == after


@pytest.mark.parametrize(
    ("text", "old", "new", "words"),
    [
        ("abc", "z", "x", "does not have that text"),
        ("a  b", "a b", "x", "white space differs"),
        ("b b", "b", "x", "2 times"),
        ("abc", "", "x", "`old` is empty"),
        ("abc", "b", "b", "are the same"),
    ],
)
def test_an_edit_that_is_not_clear_is_refused(text: str, old: str, new: str, words: str) -> None:
    with pytest.raises(ToolError, match=words):
        replaced(text, old, new, everywhere=False)


def test_a_diff_counts_lines_of_any_look() -> None:
    diff = diff_of("a", "-- x\nkept\n", "++ y\nkept\n++ z\n")
    assert (diff.plus, diff.minus) == (2, 1)


# ── paths ──


@pytest.mark.parametrize(
    "path",
    ["../outside.txt", "way_out", "folder_out/outside.txt", "/etc/passwd", ".git/config", ".env", "to_env", "a\0b"],
)
def test_nothing_outside_or_out_of_bounds_is_read_or_written(place: Workspace, path: str) -> None:
    with pytest.raises(ToolError):
        place.text(path)
    with pytest.raises(ToolError):
        place.write(path, "x")


def test_what_is_inside_is_read_by_lines_through_links_too(place: Workspace) -> None:
    assert place.lines("way_in", 2, 1) == "    2  two needle\n(way_in has 3 lines)"
    assert place.lines(str(place.root / "a.txt"), 1, 9).endswith("three")
    assert place.lines("a.txt", 9, 9) == "(a.txt has 3 lines)"
    with pytest.raises(ToolError, match="no text"):
        place.text("binary")
    with pytest.raises(ToolError, match="there is no file"):
        place.text("nowhere")
    os.mkfifo(place.root / "pipe")
    with pytest.raises(ToolError, match="cannot be read"):
        place.text("pipe")


def test_a_search_finds_what_may_be_found(place: Workspace) -> None:
    assert place.search(".", "need.e", "*") == ["a.txt:2: two needle", "src/b.py:1: needle = 1"]
    assert place.search("src", "needle", "*.py") == ["src/b.py:1: needle = 1"]
    assert place.search("a.txt", "needle", "*") == ["a.txt:2: two needle"]
    with pytest.raises(ToolError, match="no regular expression"):
        place.search(".", "(", "*")


@pytest.mark.parametrize(
    ("folder", "pattern", "found"),
    [
        (".", "*.py", ["src/b.py", "src/deep/c.py"]),
        (".", "src/*.py", ["src/b.py"]),
        (".", "**/*.py", ["src/b.py", "src/deep/c.py"]),
        ("src", "deep/?.py", ["src/deep/c.py"]),
    ],
)
def test_files_are_found_by_patterns(place: Workspace, folder: str, pattern: str, found: list[str]) -> None:
    assert place.files(folder, pattern) == found


def test_a_listing_leaves_out_what_is_out_of_bounds(place: Workspace) -> None:
    assert place.entries(".") == ["a.txt", "binary", "src/", "way_in"]


def test_a_write_keeps_the_mode_and_makes_folders(place: Workspace) -> None:
    (place.root / "a.txt").chmod(0o755)
    place.write("a.txt", "x\r\n")
    assert (place.root / "a.txt").read_bytes() == b"x\r\n"
    assert (place.root / "a.txt").stat().st_mode & 0o777 == 0o755
    place.write("new/folder/f", "x")
    with pytest.raises(ToolError):
        place.write("src", "x")


# ── tools ──


def test_every_tool_says_what_it_does_and_takes_what_its_schema_says() -> None:
    for name, tool in TOOLS.items():
        schema = schema_of(tool)
        assert schema["type"] == "object"
        assert tool.__doc__
        given = {key: {"string": "x", "integer": 1, "number": 1, "boolean": True}[kind["type"]]
                 for key, kind in schema["properties"].items()}  # fmt: skip
        assert call_of(name, given).use().kind


@pytest.mark.parametrize("args", [None, 7, "{", {"path": 3}, {"pat": "x"}, {}, []])
def test_a_call_that_makes_no_sense_is_told_to_the_model(args: object) -> None:
    with pytest.raises(ToolError, match="`read` is not called so"):
        call_of("read", args)


# ── commands ──


def _run(line: str, folder: Path, timeout: float = 20, most: int = 1000) -> tuple[int | None, str]:
    return asyncio.run(run_command(line, folder, {"PATH": os.environ["PATH"], "A": "b"}, timeout, most))


def test_a_command_gives_its_output_and_code(tmp_path: Path) -> None:
    assert _run("echo $A; pwd; echo err >&2; exit 3", tmp_path) == (3, f"b\n{tmp_path}\nerr\n")


def test_a_command_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    assert _run("sleep 60", tmp_path, timeout=0.1)[0] is None


def test_a_command_that_is_given_up_is_gone_with_what_it_started(tmp_path: Path) -> None:
    async def give_up() -> int:
        going = asyncio.ensure_future(
            run_command("sleep 60 & echo $! > new; mv new pid; wait", tmp_path, os.environ, 60, 100)
        )
        await asyncio.to_thread(eventually, (tmp_path / "pid").exists, what="its pid")
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        return int((tmp_path / "pid").read_text())

    pid = asyncio.run(give_up())
    eventually(lambda: not processes.alive(pid), what="its end")


def test_what_a_command_leaves_behind_is_not_waited_for(tmp_path: Path) -> None:
    code, output = _run("sleep 60 & echo $!", tmp_path)
    assert code == 0
    eventually(lambda: not processes.alive(int(output)), what="its end")


def test_much_output_keeps_its_two_ends() -> None:
    tail = Tail(40)
    for n in range(1000):
        tail.feed(f"{n:04}\n".encode())
    text = tail.text()
    assert text.startswith("0000\n0001\n")
    assert text.endswith("0998\n0999\n")
    assert "bytes left out" in text


# ── speech ──


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_short_answer_is_one_event_and_a_long_one_grows_by_lines() -> None:
    told: list[Event] = []
    clock = Clock()
    speech = Speech(told.append, clock)
    speech.say("think", thinks=True)
    for word in ("one ", "two\n", "three"):
        speech.say(word)
    speech.flush()
    assert told == [ThinkingDelta(text="think"), Message(role="assistant", text="one two\nthree")]
    del told[:]
    for word in ("a\n", "b", "c d"):
        speech.say(word)
        clock.now += 1.5
    speech.say("e f")
    clock.now += 5
    speech.say(" g")
    speech.flush()
    texts = [event.text for event in told if isinstance(event, Message)]
    assert texts == ["a\n", "bc de f ", "g"]


# ── secrets ──


def test_secrets_are_taken_out_of_texts_and_keys_out_of_environments() -> None:
    env = {
        "OPENAI_API_KEY": "sk-12345678",
        "LAB": "lab-key-value",
        "PATH": "/bin",
        "SSH_KEY": "/home/me/.ssh/id",
        "TOKEN": "x",
    }
    redactor = Redactor(env)
    redactor.add("LAB", env["LAB"])
    event = ToolUseProposed(id="1", name="n", args={"a": ["x sk-12345678", 1]}, risk="Exec")
    assert redactor.event(event) == ToolUseProposed(
        id="1", name="n", args={"a": ["x [OPENAI_API_KEY]", 1]}, risk="Exec"
    )
    assert redactor.text("lab-key-value /home/me/.ssh/id x") == "[LAB] /home/me/.ssh/id x"
    assert without_keys(env, ["LAB"]) == {"PATH": "/bin", "SSH_KEY": "/home/me/.ssh/id", "TOKEN": "x"}
