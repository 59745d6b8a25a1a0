"""What jobs.toml may say, and what is said of one that makes no sense."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from sparrow_mp.jobs import JobsError, parse_jobs
from sparrow_mp.jobs_file import add_job, keep_good
from sparrow_mp.paths import find_places
from sparrow_supervisor.aside import Bell
from sparrow_supervisor.loop import Loop
from sparrow_supervisor.watching import Watched, Watching, pattern_to_regex, root_of

pytestmark = pytest.mark.unit

GOOD = """
[jobs.nightly]
task = "make test"
engine = "shell"
cron = "0 3 * * 1-5"
timezone = "Europe/Paris"
missed = "once"
autonomy = "trusted"
budget = 2
labels = ["a"]
env = { A = "1" }

[jobs.other]
argv = ["echo", "x"]
watch = "*.py"
cwd = "/tmp"
"""


def test_a_good_file() -> None:
    jobs = parse_jobs(GOOD, "jobs.toml")
    nightly, other = jobs["nightly"], jobs["other"]
    assert (nightly.submit.task, nightly.submit.budget, nightly.submit.env) == ("make test", 2.0, {"A": "1"})
    assert (nightly.submit.name, nightly.missed, nightly.overlap, nightly.paused) == ("nightly", "once", "skip", False)
    assert (other.watch, other.cron) == (("*.py",), None)
    assert parse_jobs("", "jobs.toml") == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[jobs.a]\ntask = "x"\ncron = "0 0 30 2 *"\n', "line 3: job `a`: the cron line `0 0 30 2 *` never fires"),
        ('[jobs.a]\ntask = "x"\ncron = "@daily"\ntimezone = "Europe/Pari"', "line 4: job `a`: unknown timezone `Europe/Pari`"),
        ('\n[jobs.a]\ncron = "@daily"', "line 2: job `a` has no task"),
        ('[jobs.a]\ntask = "x"\ncron = "@daily"\n\n[jobs.a]\n', "line 5: there is a job `a` already"),
        ('[jobs.a]\ntask = "x"', "line 1: job `a` never fires"),
        ('[jobs.b]\ntask="x"\ncron="@daily"\n[jobs.a]\ntask="x"\ncorn="@daily"', "line 6: job `a`: unknown key `corn`; did you mean `cron`?"),
        ('[jobs.a]\ntask = "x"\nid = "y"', "line 3: job `a`: unknown key `id`"),
        ('[jobs.a]\ntask = "x"\nwatch = ["../x"]', "line 3: job `a`: the pattern `../x` leads out"),
        ('[jobs.a]\ntask = "x"\nwatch = ["/etc/x"]', "line 3: job `a`: the pattern `/etc/x` leads out"),
        ('[jobs.a]\ntask = "x"\nwatch = 3', "line 3: job `a`: `watch` is a list"),
        ('[jobs.a]\ntask = "x"\ncron = "@daily"\nbudget = "much"', "line 4: job `a`: `budget`"),
        ('[jobs.a]\ntask = "x"\ncron = "@daily"\noverlap = "maybe"', "line 4: job `a`: `overlap` is `maybe`; it is one of skip"),
        ('[jobs.a]\ntask = "x"\ncron = "@daily"\ncwd = "here"', "line 4: job `a`: the folder `here` is not absolute"),
        ('[jobs.a]\ntask = "x"\ncron = "@daily"\npaused = "no"', "line 4: job `a`: `paused` is true or false"),
        ('[jobs."a b"]\ntask = "x"', "the job's name 'a b' will not do"),
        ('[jobs.a]\ntask = "x', "line 2: not TOML"),
        ("[jobs\n", "line 1: not TOML"),
        ("[job.a]\n", "line 1: unknown key `job`"),
        ("jobs = 3", "line 1: `jobs` is a table"),
        ("[jobs]\na = 3", "job `a`: a job is a table"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_line(text: str, said: str) -> None:
    with pytest.raises(JobsError) as caught:
        parse_jobs(text, "jobs.toml")
    assert said in caught.value.message


@pytest.mark.parametrize(
    ("pattern", "fits", "does_not"),
    [
        ("*.py", ["a.py"], ["b/a.py", "a.pyc"]),
        ("**/*.py", ["a.py", "b/a.py", "b/c/a.py"], ["a.txt"]),
        ("src/**", ["src/a", "src/b/c"], ["srcs/a"]),
        ("./a?.[ch]", ["ab.c", "ab.h"], ["a.c", "ab.x"]),
        ("[!a].x", ["b.x"], ["a.x"]),
        ("a[.x", ["a[.x"], ["a.x"]),
        ("[z-a]", [], ["b"]),
    ],
)
def test_patterns(pattern: str, fits: list[str], does_not: list[str]) -> None:
    regex = pattern_to_regex(pattern)
    assert all(regex.match(path) for path in fits)
    assert not any(regex.match(path) for path in does_not)


def test_only_the_part_of_the_folder_is_watched_that_can_fit(tmp_path) -> None:
    (tmp_path / "src" / "deep").mkdir(parents=True)
    watched = Watched(str(tmp_path), ())
    assert root_of(watched, "src/deep/*.py") == str(tmp_path / "src" / "deep")
    assert root_of(watched, "src/*/a.py") == str(tmp_path / "src")
    assert root_of(watched, "later/*.py") == str(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "x = " + "[" * 3000 + "]" * 3000,
        "x = " + "9" * 5000,
        "[jobs.a]\ntask = 'x'\ncron = '" + "9" * 5000 + " * * * *'",
    ],
    ids=["deep", "long", "a long field"],
)
def test_what_is_beyond_reason_is_a_fault_like_others(text: str) -> None:
    with pytest.raises(JobsError):
        parse_jobs(text, "jobs.toml")


def test_a_pipe_in_the_place_of_the_good_jobs_is_not_waited_for(tmp_path) -> None:
    places = find_places({"SPARROW_STATE_DIR": str(tmp_path)})
    os.mkfifo(places.good_jobs)
    keep_good(places, GOOD)
    assert places.good_jobs.read_text() == GOOD


def test_a_file_that_cannot_be_edited_from_here_says_so_and_stays_as_it_is(tmp_path) -> None:
    places = find_places({"SPARROW_STATE_DIR": str(tmp_path)})
    text = 'jobs = { a = { task = "x", cron = "@daily" } }\n'
    places.jobs.write_text(text)
    with pytest.raises(JobsError, match="edit it by hand"):
        add_job(places, "b", {"task": "y", "cron": "@daily", "env": {"A": "1"}})
    assert places.jobs.read_text() == text


def test_a_folder_that_went_away_and_came_back_is_watched_again(tmp_path) -> None:
    loop, told = Loop(), threading.Event()
    source = tmp_path / "src"
    source.mkdir()
    watching = Watching(Bell(loop), tmp_path / "own", lambda _job, _at: told.set())
    watching.watch({"a": Watched(str(tmp_path), ("src/*.py",))})
    turning = threading.Thread(target=loop.run)
    loop.later(0.1, lambda: None)
    turning.start()

    def until_told() -> bool:
        told.clear()
        until = time.monotonic() + 20
        while not told.is_set() and time.monotonic() < until:
            (source / "x.py").write_text(str(time.monotonic()))
            told.wait(0.3)
        return told.is_set()

    try:
        assert until_told()
        (source / "x.py").unlink()
        source.rmdir()
        assert told.wait(20)
        time.sleep(0.5)  # what is told of the folder's end is no news of the next one
        source.mkdir()
        assert until_told()
    finally:
        watching.close()
        loop.later(0, loop.stop)
        Bell.call(watching._bell, lambda: None)
        turning.join(5)


def test_edits_at_once_are_all_kept_and_the_file_keeps_its_mode(tmp_path) -> None:
    places = find_places({"SPARROW_STATE_DIR": str(tmp_path / "s"), "SPARROW_CONFIG": str(tmp_path / "config.toml")})
    places.jobs.parent.mkdir(parents=True, exist_ok=True)
    places.jobs.write_text("# mine\n")
    places.jobs.chmod(0o640)
    names = [f"job{number}" for number in range(20)]

    def add(name: str) -> None:
        add_job(places, name, {"task": "x", "cron": "@daily"})

    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(add, names))
    assert set(parse_jobs(places.jobs.read_text(), "jobs.toml")) == set(names)
    assert places.jobs.stat().st_mode & 0o777 == 0o640
