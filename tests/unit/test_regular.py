"""Opening what something else may have put there: neither waited for, nor followed, nor read without end."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparrow_mp.regular import open_regular, read_regular, write_regular
from sparrow_mp.run import alive
from sparrow_mp.run.layout import PAGE
from sparrow_mp.run.outbox import Outbox
from sparrow_mp.wire import ExitReport, encode
from sparrow_supervisor.reports import exit_report, reaped_status

RUN = "1b0c8f5e-2f0a-4c1d-9e6b-0a1b2c3d4e5f"

pytestmark = pytest.mark.unit


def instead(path: Path, kind: str) -> None:
    """Something else of this name."""
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "link":
        (path.parent / "elsewhere").write_bytes(encode(ExitReport(rejected="from elsewhere")))
        path.symlink_to("elsewhere")
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "large":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    else:
        path.write_bytes(kind.encode())


KINDS = ["pipe", "folder", "link", "dangling", "device", "large", "", "\0" * 5000, "[" * 5000, '{"wait_status":"x"}']


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_run_leaves_in_place_of_its_files_is_as_good_as_nothing(tmp_path: Path, kind: str) -> None:
    for name in ("exit.json", "reaped", "alive", "outbox"):
        folder = tmp_path / name
        folder.mkdir()
        instead(folder / name, kind)
        assert exit_report(folder) is None or name != "exit.json"
        assert reaped_status(folder) is None
        assert alive.monitor_of(folder) is None
        with pytest.raises((OSError, ValueError)):
            Outbox(folder / "outbox", RUN)
        assert not (folder / "nowhere").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_written_whatever_had_its_name(tmp_path: Path, kind: str) -> None:
    instead(tmp_path / "exit.json", kind)
    instead(tmp_path / "exit.new", "pipe")
    try:
        write_regular(tmp_path / "exit.json", b"7")
    except OSError:
        assert kind == "folder"
    else:
        assert read_regular(tmp_path / "exit.json", 10) == b"7"
        assert (tmp_path / "exit.json").stat().st_mode & 0o777 == 0o600
    if kind == "link":
        assert b"elsewhere" in (tmp_path / "elsewhere").read_bytes()


def test_a_file_is_read_up_to_a_size(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_regular(tmp_path / "file", 4)


def test_a_refused_file_is_not_kept_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "pipe")
    assert os.listdir("/proc/self/fd") == before


def test_an_outbox_without_a_line_break_is_read_no_further_than_a_line_may_be_long(tmp_path: Path) -> None:
    path = tmp_path / "outbox"
    Outbox.create(path, 64 << 20)
    with path.open("r+b") as file:
        file.truncate(PAGE + (1 << 40))
        file.seek(16)
        file.write((5).to_bytes(8, "little") + (64 << 20).to_bytes(8, "little"))
    outbox = Outbox(path, RUN)
    assert outbox.unrecorded(0) == []
    outbox.close()


def test_an_outbox_that_says_that_it_is_endless_is_none(tmp_path: Path) -> None:
    path = tmp_path / "outbox"
    Outbox.create(path, 1 << 62)
    with pytest.raises(ValueError, match="damaged"):
        Outbox(path, RUN)
