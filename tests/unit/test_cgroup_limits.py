"""What is written into a cgroup and read from it. (A folder stands in for one: few machines hand out controllers.)"""

from __future__ import annotations

from pathlib import Path

from sparrow_mp.run.cgroup_limits import out_of_memory, out_of_tasks, set_limits


def test_without_controllers_nothing_is_made_and_nothing_is_reached(tmp_path: Path) -> None:
    set_limits(tmp_path, 1 << 20, 5)
    assert not list(tmp_path.iterdir())
    assert not out_of_memory(tmp_path)
    assert out_of_tasks(tmp_path) is None


def test_what_the_kernel_is_told(tmp_path: Path) -> None:
    for name in ("memory.max", "memory.swap.max", "memory.oom.group", "pids.max"):
        (tmp_path / name).touch()
    set_limits(tmp_path, None, None)
    assert not any(path.read_text() for path in tmp_path.iterdir())
    set_limits(tmp_path, 1 << 20, 5)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "memory.max": "1048576", "memory.swap.max": "0", "memory.oom.group": "1", "pids.max": "64",
    }  # fmt: skip


def test_what_the_kernel_says(tmp_path: Path) -> None:
    events = tmp_path / "memory.events"
    events.write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 0\noom_group_kill 0\n")
    assert not out_of_memory(tmp_path)
    events.write_text("low 0\nhigh 0\nmax 12\noom 1\noom_kill 3\noom_group_kill 1\n")
    assert out_of_memory(tmp_path)


def test_a_refused_process_counts_where_the_limit_is_its_own(tmp_path: Path) -> None:
    def told(**files: object) -> int | None:
        for name, value in files.items():
            (tmp_path / f"pids.{name}").write_text(f"{value}\n")
        return out_of_tasks(tmp_path)

    assert told(max=100, current=99, peak=100, events="max 0") is None
    assert told(events="max 7") == 100
    assert told(current=3) == 100  # it had been
    assert told(peak=20) is None  # it was another's bomb that left no room, counted here by an older kernel
    assert told(max="max") is None


def test_a_run_is_let_no_more_tasks_than_half_of_what_all_have(tmp_path: Path) -> None:
    leaf = tmp_path / "leaf"
    leaf.mkdir()
    (tmp_path / "pids.max").write_text("16384\n")
    for processes, tasks in ((1, 64), (100, 800), (5000, 8192)):
        (leaf / "pids.max").write_text("")
        set_limits(leaf, None, processes)
        assert int((leaf / "pids.max").read_text()) == tasks
    (tmp_path / "pids.max").write_text("max\n")
    (leaf / "pids.max").write_text("")
    set_limits(leaf, None, 5000)
    assert (leaf / "pids.max").read_text() == "40000"
