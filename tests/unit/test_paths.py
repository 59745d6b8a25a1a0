"""Where everything lies, and the places that are refused."""

from __future__ import annotations

import fcntl
import os
import uuid
from pathlib import Path

import pytest

from sparrow_mp.errors import StateError
from sparrow_mp.paths import UNIX_ADDRESS_LIMIT, Places, check_address, find_places, secure_folder, supervisor_alive

RUN = "1b0c8f5e-2f0a-4c1d-9e6b-0a1b2c3d4e5f"


# ── where ──


def test_the_defaults_are_the_contract_s() -> None:
    places = find_places({"HOME": "/home/me"})
    assert places.state == Path("/home/me/.local/state/sparrow")
    assert places.runtime == places.state / "run"
    assert places.config == Path("/home/me/.config/sparrow/config.toml")
    assert places.transcript(RUN) == places.state / "transcripts" / RUN
    assert places.unix_socket == places.state / "sparrow.sock"
    assert places.control == f"ipc://{places.runtime}/control.sock"
    assert places.events == f"ipc://{places.runtime}/events.sock"


def test_the_runtime_folder_of_the_session_is_for_the_default_state_alone() -> None:
    env = {"HOME": "/home/me", "XDG_RUNTIME_DIR": "/run/user/7"}
    assert find_places(env).runtime == Path("/run/user/7/sparrow")
    assert find_places({**env, "XDG_STATE_HOME": "/s"}).runtime == Path("/run/user/7/sparrow")
    # Two state folders never share a runtime folder.
    assert find_places({**env, "SPARROW_STATE_DIR": "/other"}).runtime == Path("/other/run")
    assert find_places({**env, "SPARROW_STATE_DIR": "/home/me/.local/state/sparrow"}).runtime == Path(
        "/run/user/7/sparrow"
    )


def test_variables_go_before_the_defaults() -> None:
    env = {
        "HOME": "/home/me",
        "XDG_STATE_HOME": "/xs",
        "XDG_CONFIG_HOME": "/xc",
        "XDG_RUNTIME_DIR": "/xr",
        "SPARROW_STATE_DIR": "/s",
        "SPARROW_RUNTIME_DIR": "/r",
        "SPARROW_CONFIG": "/c.toml",
    }
    assert find_places(env) == Places(Path("/s"), Path("/r"), Path("/c.toml"))
    assert find_places(env, Path("/flag.toml")).config == Path("/flag.toml")
    for name in ("SPARROW_STATE_DIR", "SPARROW_RUNTIME_DIR", "SPARROW_CONFIG"):
        env[name] = ""  # as good as not set
    assert find_places(env) == Places(Path("/xs/sparrow"), Path("/xr/sparrow"), Path("/xc/sparrow/config.toml"))


def test_all_places_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    places = find_places({"SPARROW_STATE_DIR": "s", "SPARROW_RUNTIME_DIR": "r", "SPARROW_CONFIG": "c.toml"})
    assert places == Places(tmp_path / "s", tmp_path / "r", tmp_path / "c.toml")


def test_the_process_s_environment_is_asked_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARROW_STATE_DIR", "/somewhere")
    assert find_places().state == Path("/somewhere")


def test_finding_makes_nothing(tmp_path: Path) -> None:
    find_places({"HOME": str(tmp_path)})
    assert list(tmp_path.iterdir()) == []


def test_endpoints_are_short_and_differ() -> None:
    places = Places(Path("/s"), Path("/r"), Path("/c"))
    assert places.endpoint(RUN) == "ipc:///r/r/1b0c8f5e2f0a4c1d"
    runs = [str(uuid.uuid4()) for _ in range(1000)]
    assert len({places.endpoint(run) for run in runs}) == 1000


# ── safe ──


def refusal(path: Path) -> str:
    with pytest.raises(StateError) as caught:
        secure_folder(path)
    assert str(path) in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_folder_is_made_with_its_parents_and_is_ours_alone(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        secure_folder(tmp_path / "a" / "b" / "c")
    finally:
        os.umask(before)
    assert (tmp_path / "a" / "b" / "c").stat().st_mode & 0o777 == 0o700
    (tmp_path / "a" / "b" / "c" / "file").write_text("")
    secure_folder(tmp_path / "a" / "b" / "c")  # again, with something in it


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")
    assert "is a symbolic link; " in refusal(tmp_path / "link")
    assert "is a symbolic link; " in refusal(tmp_path / "dangling")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("mode", "safe"), [(0o777, False), (0o757, False), (0o1777, True), (0o775, True), (0o700, True)]
)
def test_a_folder_that_every_user_could_replace_is_refused(tmp_path: Path, mode: int, safe: bool) -> None:
    (tmp_path / "above" / "between").mkdir(parents=True)
    (tmp_path / "above").chmod(mode)
    (tmp_path / "link").symlink_to("above/between")
    for folder in (tmp_path / "above" / "between" / "own", tmp_path / "link" / "own"):
        if safe:
            secure_folder(folder)
        else:
            assert f"every user can put another folder in the place of {folder}" in refusal(folder)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have a link of another user's")
def test_a_folder_behind_another_users_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    secure_folder(tmp_path / "link" / "own")  # our own link is our own business
    os.chown(tmp_path / "link", 12345, 12345, follow_symlinks=False)
    assert "a symbolic link of user 12345; name the real folder" in refusal(tmp_path / "link" / "own")


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o750, 0o755, 0o777, 0o702, 0o1777])
def test_a_folder_that_others_may_enter_is_refused(tmp_path: Path, mode: int) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(mode)
    assert f"is open to other users (mode {mode:04o}); close it: chmod 700 " in refusal(tmp_path / "open")
    assert (tmp_path / "open").stat().st_mode & 0o7777 == mode  # it is told, not changed


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "is not a folder" in refusal(tmp_path / "file")
    os.mkfifo(tmp_path / "fifo")
    assert "is not a folder" in refusal(tmp_path / "fifo")


def test_what_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot make the folder" in refusal(tmp_path / "file" / "below")
    assert "File name too long" in refusal(tmp_path / ("x" * 300))


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to have a folder of another user's")
def test_a_folder_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o700)
    os.chown(tmp_path / "theirs", 12345, 12345)
    assert "belongs to user 12345, not to you (0)" in refusal(tmp_path / "theirs")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    assert "is not writable" in refusal(tmp_path / "closed")


def test_an_address_may_have_so_many_bytes_and_no_more() -> None:
    fits = Path("/" + "x" * (UNIX_ADDRESS_LIMIT - 1))
    check_address(fits, "the socket")
    for longer in (Path(f"{fits}x"), Path("/" + "é" * 54)):
        with pytest.raises(
            StateError, match=r"the path of the socket is too long .* has 10[89] bytes, the limit is 107"
        ):
            check_address(longer, "the socket")


# ── alive ──


def test_a_supervisor_lives_as_long_as_it_holds_the_lock(tmp_path: Path) -> None:
    places = Places(tmp_path, tmp_path, tmp_path)
    seen = [supervisor_alive(places)]
    places.lock.write_text("4242")
    seen.append(supervisor_alive(places))
    fd = os.open(places.lock, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    seen += [supervisor_alive(places), supervisor_alive(places)]
    os.close(fd)
    seen.append(supervisor_alive(places))
    assert seen == [False, False, True, True, False]


def test_two_who_look_at_once_do_not_see_each_other(tmp_path: Path) -> None:
    places = Places(tmp_path, tmp_path, tmp_path)
    places.lock.write_text("")
    fd = os.open(places.lock, os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_SH)
    assert not supervisor_alive(places)
    os.close(fd)


def test_looking_whether_it_lives_keeps_nothing(tmp_path: Path) -> None:
    places = Places(tmp_path, tmp_path, tmp_path)
    places.lock.write_text("")
    before = os.listdir("/proc/self/fd")
    supervisor_alive(places)
    assert len(os.listdir("/proc/self/fd")) == len(before)
    fd = os.open(places.lock, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # free
    os.close(fd)
