"""Settings: defaults, file, environment, in this order; a mistake names the file and the key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sparrow_mp.config import Config, load_config, split_address
from sparrow_mp.errors import ConfigError


def load(folder: Path, text: str, **env: str) -> Config:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path, env)


def refusal(folder: Path, text: str, **env: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(folder, text, **env)
    return caught.value.message


def test_without_a_file_all_is_as_the_contract_says(tmp_path: Path) -> None:
    config = load_config(tmp_path / "none.toml", {})
    assert config == Config()
    assert (config.run.engine, config.run.grace) == ("shell", 10.0)
    assert (config.ndjson.tcp, config.ndjson.unix, config.ndjson.stall_timeout) == ("127.0.0.1:9337", "", 600.0)
    assert load(tmp_path, "") == config


def test_the_file_goes_before_the_defaults_and_the_environment_before_the_file(tmp_path: Path) -> None:
    text = '[run]\nengine = "command"\ngrace = 3\n[supervisor]\nmax_runs = 7\nfsync = "always"\n'
    config = load(tmp_path, text)
    assert (config.run.engine, config.run.grace, config.run.outbox_bytes) == ("command", 3.0, 8 << 20)
    assert (config.supervisor.max_runs, config.supervisor.fsync) == (7, "always")
    config = load(tmp_path, text, SPARROW_RUN_GRACE="0.5", SPARROW_SUPERVISOR_MAX_RUNS="9", SPARROW_OTHER="x")
    assert (config.run.engine, config.run.grace, config.supervisor.max_runs) == ("command", 0.5, 9)


def test_every_setting_has_a_variable(tmp_path: Path) -> None:
    env = {
        "SPARROW_RUN_ENGINE": "python",
        "SPARROW_RUN_GRACE": "1.5",
        "SPARROW_RUN_OUTBOX_BYTES": "4194304",
        "SPARROW_SUPERVISOR_LOG_LEVEL": "debug",
        "SPARROW_SUPERVISOR_MAX_RUNS": "3",
        "SPARROW_SUPERVISOR_MAX_QUEUE": "4",
        "SPARROW_SUPERVISOR_FSYNC": "never",
        "SPARROW_NDJSON_TCP": "127.0.0.1:0",
        "SPARROW_NDJSON_UNIX": "/tmp/x.sock",
        "SPARROW_NDJSON_STALL_TIMEOUT": "5",
    }
    config = load_config(tmp_path / "none.toml", env)
    for name, value in env.items():
        section, key = name.removeprefix("SPARROW_").lower().split("_", 1)
        assert type(value)(getattr(getattr(config, section), key)) in (value, f"{value}.0")
        assert getattr(getattr(config, section), key) != getattr(getattr(Config(), section), key)


@pytest.mark.parametrize("address", ["", "127.0.0.1:0", "[::1]:80", "localhost:65535"])
def test_tcp_has_a_short_name_and_may_be_switched_off(tmp_path: Path, address: str) -> None:
    assert load(tmp_path, '[ndjson]\ntcp = "127.0.0.1:1"', SPARROW_TCP=address).ndjson.tcp == address


def test_the_environment_is_the_process_s_where_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPARROW_RUN_GRACE", "2")
    assert load_config(tmp_path / "none.toml").run.grace == 2.0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[run]\ngarce = 3", "unknown key `run.garce`; did you mean `grace`?"),
        ("[ruin]\ngrace = 3", "unknown key `ruin`; did you mean `run`?"),
        ("[zzzzz]", "unknown key `zzzzz`; the known ones are run, supervisor, ndjson"),
        ("[run]\nxyzzy = 3", "unknown key `run.xyzzy`; the known ones are engine, grace, outbox_bytes"),
        ("grace = 3", "unknown key `grace`"),
        ("run = 3", "`run` is a table; write it as [run]"),
        ('[run]\ngrace = "3"', "`run.grace`: Expected `float`, got `str`"),
        ("[run]\nengine = 3", "`run.engine`: Expected `str`, got `int`"),
        ("[run]\nengine = []", "`run.engine`: Expected `str`, got `array`"),
        ("[supervisor]\nmax_runs = 1.5", "`supervisor.max_runs`: Expected `int`, got `float`"),
        ("[supervisor]\nmax_runs = true", "`supervisor.max_runs`: Expected `int`, got `bool`"),
        ('[supervisor]\nfsync = "sometimes"', "`supervisor.fsync`: Invalid enum value 'sometimes'"),
        ("[run]\ngrace = -1", "`run.grace` is -1.0; the least is 0.0"),
        ("[run]\ngrace = nan", "`run.grace` is nan"),
        ("[run]\ngrace = inf", "`run.grace` is inf"),
        ("[run]\noutbox_bytes = 1000", "`run.outbox_bytes` is 1000; the least is 2097152"),
        ("[supervisor]\nmax_runs = -1", "`supervisor.max_runs` is -1; the least is 0"),
        ("[supervisor]\nmax_queue = -1", "`supervisor.max_queue` is -1; the least is 0"),
        ("[ndjson]\nstall_timeout = 0", "`ndjson.stall_timeout` is 0.0; the least is 1.0"),
        ("[ndjson]\nstall_timeout = nan", "`ndjson.stall_timeout` is nan"),
        ("[run", "is not TOML: "),
        ("[run]\ngrace = 3\ngrace = 4", "is not TOML: "),
        ("\0", "is not TOML: "),
    ],
)
def test_a_mistake_names_the_file_and_the_key(tmp_path: Path, text: str, words: str) -> None:
    message = refusal(tmp_path, text)
    assert message.startswith(str(tmp_path / "config.toml"))
    assert words in message


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SPARROW_RUN_GRACE", "soon", "the variable SPARROW_RUN_GRACE: `run.grace`"),
        ("SPARROW_RUN_GRACE", "nan", "`run.grace` is nan"),
        ("SPARROW_RUN_GRACE", "", "the variable SPARROW_RUN_GRACE: `run.grace`"),
        ("SPARROW_SUPERVISOR_MAX_RUNS", "1.5", "the variable SPARROW_SUPERVISOR_MAX_RUNS: `supervisor.max_runs`"),
        ("SPARROW_SUPERVISOR_LOG_LEVEL", "loud", "the variable SPARROW_SUPERVISOR_LOG_LEVEL: `supervisor.log_level`"),
        ("SPARROW_TCP", "9337", "`ndjson.tcp` is `9337`; write HOST:PORT"),
    ],
)
def test_a_mistake_in_the_environment_names_the_variable(tmp_path: Path, name: str, value: str, words: str) -> None:
    assert words in refusal(tmp_path, "", **{name: value})


@pytest.mark.parametrize(
    "address",
    ["9337", "localhost", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:-1", "127.0.0.1:65536", ":", "127.0.0.1:\u00b2",
     "127.0.0.1:\u0661", "127.0.0.1:" + "9" * 5000, "127.0.0.1: 1"],
)  # fmt: skip
def test_an_address_is_host_and_port(tmp_path: Path, address: str) -> None:
    assert "; write HOST:PORT, such as 127.0.0.1:9337, or leave it empty" in refusal(
        tmp_path, f'[ndjson]\ntcp = "{address}"'
    )


@pytest.mark.parametrize("host", ["0.0.0.0", "", "[::]", "192.168.0.1", "example.com", "127.0.0.1.example.com"])
def test_only_this_machine_is_listened_to(tmp_path: Path, host: str) -> None:
    assert "sparrow listens on this machine only" in refusal(tmp_path, f'[ndjson]\ntcp = "{host}:9337"')


@pytest.mark.parametrize(
    ("address", "parts"),
    [("127.0.0.1:9337", ("127.0.0.1", 9337)), ("[::1]:0", ("::1", 0)), ("localhost:1", ("localhost", 1))],
)
def test_an_address_in_its_parts(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address, Path("config.toml")) == parts


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError, match=r"cannot read .*/folder: Is a directory"):
        load_config(tmp_path / "folder", {})
    (tmp_path / "latin").write_bytes(b'[run]\nengine = "\xe9"')
    with pytest.raises(ConfigError, match="/latin is not TOML"):
        load_config(tmp_path / "latin", {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_of_somebody_else_s_says_so(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("")
    path.chmod(0)
    with pytest.raises(ConfigError, match="Permission denied"):
        load_config(path, {})
