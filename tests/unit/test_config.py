"""Settings: defaults, file, environment, in this order; a mistake names the file and the key."""

from __future__ import annotations

import os
import re
import tomllib
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparrow_mp.config import Config, changed, load_config, read_settings, split_address
from sparrow_mp.config_example import config_example
from sparrow_mp.errors import ConfigError
from sparrow_mp.settings import NAMED, SECTIONS, Changes, Setting, settings_of


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


def test_durations_and_sizes_may_be_said_as_on_the_command_line(tmp_path: Path) -> None:
    text = '[run]\ngrace = "90s"\nmemory = "2G"\n[retention]\nmax_age_days = "36h"\nmax_bytes = "1.5K"\n'
    config = load(tmp_path, text, SPARROW_RUN_TIMEOUT="1h30m", SPARROW_RUN_MAX_OUTPUT="1M")
    assert (config.run.grace, config.run.memory, config.run.timeout, config.run.max_output) == (
        90,
        2 << 30,
        5400,
        1 << 20,
    )
    assert (config.retention.max_age_days, config.retention.max_bytes) == (1.5, 1536)
    for days in ("30", "30d"):
        assert load(tmp_path, "", SPARROW_RETENTION_MAX_AGE_DAYS=days).retention.max_age_days == 30


def test_an_engine_s_table_goes_before_run_for_its_runs(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        '[run]\nnice = 1\ngrace = 3\n[engines.claude]\nnice = 2\n[engines."a.b"]\ntimeout = "2m"\n',
        SPARROW_RUN_NICE="7",
    )
    assert (config.run_for("shell"), config.run.nice) == (config.run, 7)
    assert (config.run_for("claude").nice, config.run_for("claude").grace) == (2, 3)
    assert config.run_for("a.b").timeout == 120
    snapshot = config.snapshot("claude")
    assert (snapshot["run"]["nice"], snapshot["run"]["grace"]) == (2, 3)
    assert "notify" not in snapshot
    assert load(tmp_path, "[engines.x]") == Config(engines={})


def test_lists_in_a_variable_have_commas(tmp_path: Path) -> None:
    assert load(tmp_path, "", SPARROW_NOTIFY_ON="waiting, ended").notify.on == ["waiting", "ended"]
    assert load(tmp_path, "", SPARROW_NOTIFY_ON="").notify.on == []
    assert not load(tmp_path, "", SPARROW_SUPERVISOR_RESTART="false").supervisor.restart


def test_every_value_has_its_source(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[run]\ngrace = 3\nnice = 2\n[engines.x]\nnice = 3\n[ndjson]\ntcp = ''")
    env = {"SPARROW_RUN_NICE": "4", "SPARROW_TCP": "127.0.0.1:1", "SPARROW_NDJSON_TCP": "127.0.0.1:2"}
    found = {
        f"{value.table}.{value.setting.key}": (value.value, value.source) for value in read_settings(path, env).values
    }
    assert found["run.grace"] == (3.0, str(path))
    assert found["run.nice"] == (4, "$SPARROW_RUN_NICE")
    assert found["engines.x.nice"] == (3, str(path))
    assert found["ndjson.tcp"] == ("127.0.0.1:2", "$SPARROW_NDJSON_TCP")
    assert found["supervisor.max_runs"] == (0, "default")


def test_what_differs(tmp_path: Path) -> None:
    old, new = Config(), load(tmp_path, "[run]\nnice = 1\n[engines.x]\nnice = 2\n[ndjson]\ntcp = ''")
    assert changed(old, new) == ["run.nice", "ndjson.tcp", "engines.x.nice"]
    assert changed(old, new, Changes.AT_START) == ["ndjson.tcp"]
    assert changed(new, old, Changes.NEW_RUNS) == ["run.nice", "engines.x.nice"]
    assert not changed(new, new)


def test_the_example_says_everything_and_sets_nothing(tmp_path: Path) -> None:
    example = config_example()
    assert load(tmp_path, example) == Config()
    told = re.sub(r"(?m)^#(?=\[|[a-z_]+ = )", "", example)  # as somebody does who takes all the comment marks away
    table = tomllib.loads(told)
    assert {section: list(table[section]) for section in SECTIONS} == {
        section: list(settings_of(section)) for section in SECTIONS
    }
    assert {section: list(table[section]["NAME"]) for section in NAMED} == {
        section: list(settings_of(section)) for section in NAMED
    }
    assert msgspec.structs.replace(load(tmp_path, told), engines={}, endpoints={}, agents={}, mcp={}) == Config()


def test_the_example_in_the_docs_is_this_one() -> None:
    """Where it is not: ``sparrow config example > docs/config.example.toml``."""
    assert (Path(__file__).parents[2] / "docs" / "config.example.toml").read_text(encoding="utf-8") == config_example()


@pytest.mark.parametrize("section", [*SECTIONS, *NAMED])
def test_every_setting_says_what_it_means(section: str) -> None:
    for setting in settings_of(section).values():
        assert setting.description.endswith("."), setting.name
        number = setting.type in (int, float)
        assert (setting.least is not None and setting.most is not None) == number, setting.name
        assert setting.read(setting.default) == setting.default


ALL = [setting for section in SECTIONS for setting in settings_of(section).values()]
ODD = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.dates() | st.lists(st.text() | st.floats())
)


@settings(max_examples=200)
@given(st.sampled_from(ALL), ODD | st.dictionaries(st.text(), ODD), st.booleans())
def test_nothing_that_a_file_or_a_variable_says_is_more_than_a_fault(setting: Setting, raw: object, text: bool) -> None:
    with suppress(ValueError):
        setting.read(raw, text=text and isinstance(raw, str))


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
        ("[zzzzz]", "unknown key `zzzzz`; the known ones are run, engines, supervisor, ndjson"),
        ("[run]\nxyzzy = 3", "unknown key `run.xyzzy`; the known ones are engine, grace, outbox_bytes"),
        ("grace = 3", "unknown key `grace`"),
        ("#\n[run]\n\ngarce = 3", ", line 4: unknown key"),
        ("#\n[ruin]\n", ", line 2: unknown key"),
        ("[engines]\nshell.nice = 20", "line 2: `engines.shell.nice` is 20; the most is 19"),
        ("engines = 3", "`engines` is a table; write it as [engines.NAME]"),
        ("[engines]\nshell = 3", "`engines.shell` is a table; write it as [engines.shell]"),
        ("[engines.shell]\nengine = 'x'", "unknown key `engines.shell.engine`"),
        ("[engines.shell]\ntimeot = 1", "unknown key `engines.shell.timeot`; did you mean `timeout`?"),
        ("[run]\nnice = 20\nbudget = -1", "(and 1 more: see `sparrow config check`)"),
        ("[run]\nbudget = inf", "`run.budget` is inf; the most is"),
        ("[run]\nmemory = -1", "`run.memory` is -1; the least is 0"),
        ("[run]\nautonomy = 'wild'", "`run.autonomy`: Invalid enum value 'wild'"),
        ("[run]\nmemory = " + "9" * 100, "`run.memory`"),
        ("[run]\nmemory = " + "9" * 5000, "is not TOML"),
        ("[run]\nmemory = '" + "9" * 400 + "G'", "is no size"),
        ("[run]\nengine = '\\u0000'".replace("'", '"'), "`run.engine` has a NUL in it"),
        ("[notify]\non = ['never']", "`notify.on`: Invalid enum value 'never'"),
        ("run = 3", "`run` is a table; write it as [run]"),
        ('[run]\ngrace = "soon"', "`run.grace`: `soon` is no duration; write seconds, or 90s"),
        ('[run]\nmemory = "1T"', "`run.memory`: `1T` is no size"),
        ("[run]\ngrace = []", "`run.grace`: Expected `float`, got `array`"),
        ("[run]\nengine = 3", "`run.engine`: Expected `str`, got `int`"),
        ("[run]\nengine = []", "`run.engine`: Expected `str`, got `array`"),
        ("[supervisor]\nmax_runs = 1.5", "`supervisor.max_runs`: Expected `int`, got `float`"),
        ("[supervisor]\nmax_runs = true", "`supervisor.max_runs`: Expected `int`, got `bool`"),
        ('[supervisor]\nfsync = "sometimes"', "`supervisor.fsync`: Invalid enum value 'sometimes'"),
        ("[run]\ngrace = -1", "`run.grace` is -1.0; the least is 0.0"),
        ("[run]\ngrace = nan", "`run.grace` is nan"),
        ("[run]\ngrace = inf", "`run.grace` is inf"),
        ("[run]\noutbox_bytes = 1000", "`run.outbox_bytes` is 1000; the least is 2097152"),
        ("a = " + "[" * 20000, "nested too deeply"),
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
        ("SPARROW_RUN_GRACE", "nan", "`nan` is no duration"),
        ("SPARROW_RUN_BUDGET", "nan", "`run.budget` is nan"),
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
