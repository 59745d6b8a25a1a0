"""The settings of a supervisor that runs: asked to, at SIGHUP, and by itself when the file has changed."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from tests.support.control import refusal
from tests.support.house import House
from tests.support.waiting import eventually


def problems(house: House) -> str:
    return "\n".join(house.status()["problems"])


def by_command(house: House) -> None:
    house.sparrow("reload")


def by_signal(house: House) -> None:
    os.kill(house.status()["pid"], signal.SIGHUP)


def by_itself(house: House) -> None:
    pass


def test_what_is_wrong_is_told_and_changes_nothing_and_what_is_right_counts(house: House):
    house.configure("[supervisor]\nmax_runs = 1\n")
    house.start()
    first = house.detach("sleep 1000")
    for way in (by_command, by_signal, by_itself):
        _reloads(house, way, first)


def _reloads(house: House, way: Callable[[House], None], first: str) -> None:
    second = house.detach("sleep 1000")
    house.configure("[supervisor]\nmax_runs = 'many'\n")
    way(house)
    eventually(lambda: "line 2: `supervisor.max_runs`" in problems(house), what="the problem")
    assert house.record(second)["status"] == "queued"
    os.replace(_new(house, "[supervisor]\nmax_runs = 2\n"), house.places.config)
    way(house)
    eventually(lambda: house.record(second)["status"] == "running", what="the second run")
    assert not problems(house)
    house.configure("[supervisor]\nmax_runs = 1\n")
    way(house)
    eventually(lambda: house.status()["most_runs"] == 1, what="the lower number")
    assert house.record(first)["status"] == house.record(second)["status"] == "running"
    house.sparrow("kill", "--now", second).ok()


def _new(house: House, text: str) -> str:
    path = house.top / "config.toml.new"
    path.write_text(text)
    return str(path)


def test_reload_says_what_has_changed_and_what_waits_for_a_start(house: House):
    house.sparrow("reload").refused(69)
    house.start()
    assert house.sparrow("reload").ok().out == "nothing has changed\n"
    house.configure('[run]\ngrace = "3s"\n[engines.shell]\nnice = 5\n[ndjson]\nstall_timeout = "5m"\n')
    out = house.sparrow("reload").ok().out
    assert "in force now: run.grace, engines.shell.nice\n" in out
    assert "next start (sparrow shutdown --keep-runs): ndjson.stall_timeout\n" in out
    assert "ndjson.stall_timeout: takes effect at the next start" in house.sparrow("status").ok().out
    told = house.sparrow("reload", "--json").ok().rows()[0]
    assert told == {"changed": [], "needs_restart": ["ndjson.stall_timeout"]}
    assert "ndjson.stall_timeout: takes effect at the next start" in house.places.log.read_text()
    house.configure("")
    house.sparrow("reload").ok()
    assert house.status()["needs_restart"] == []


def test_no_file_stops_a_supervisor(house: House):
    """A folder, a pipe, what is not UTF-8, too much of it, and none at all."""
    house.start()
    path = house.places.config
    for make, words in (
        (path.mkdir, "Is a directory"),
        (lambda: os.mkfifo(path), "neither a file"),
        (lambda: path.write_bytes(b"[run]\n# \xff"), "line 2 is not UTF-8"),
        (lambda: path.write_text("a" * 100_000), "has more than"),
        (lambda: path.write_text("a = " + "[" * 20_000), "nested too deeply"),
        (lambda: path.write_text("[run]\nnice = 20"), "line 2: `run.nice` is 20; the most is 19"),
    ):
        make()
        assert refusal(house, {"op": "reload"}) == "bad_config"
        assert words in house.places.log.read_text()
        path.rmdir() if path.is_dir() else path.unlink()
    eventually(lambda: "is gone; its settings stay in force" in problems(house), what="that it is gone")
    house.sparrow("run", "true").ok()


def test_the_settings_of_a_file_that_is_gone_stay(house: House):
    house.configure("[supervisor]\nmax_runs = 1\n")
    house.start()
    house.places.config.unlink()
    eventually(lambda: "is gone" in problems(house), what="the problem")
    assert house.status()["most_runs"] == 1
    house.configure("[supervisor]\nmax_runs = 2\n")
    eventually(lambda: house.status()["most_runs"] == 2, what="the new settings")
    assert not problems(house)
    house.places.config.unlink()
    assert house.sparrow("reload").ok().out == "in force now: supervisor.max_runs\n"
    assert not problems(house)
