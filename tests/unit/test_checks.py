"""What doctor says of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparrow_mp.cli.checks import machine_checks
from sparrow_mp.paths import Places


def found(tmp_path: Path) -> dict[str, tuple[str, str, str]]:
    where = Places(tmp_path, tmp_path, tmp_path / "config.toml")
    return {one.words: (one.check, one.state, one.remedy) for check in machine_checks(where) for one in check()}


@pytest.mark.parametrize(
    ("says", "words", "state", "remedy"),
    [
        ("LoadState=loaded\nActiveState=failed", "sparrow.service has failed", "fail", "systemctl --user status sparrow"),
        ("LoadState=loaded\nActiveState=active\nUnitFileState=enabled", "sparrow.service is enabled and active", "ok", ""),
        ("LoadState=loaded\nActiveState=active\nNeedDaemonReload=yes", "has changed since it was loaded", "note", "daemon-reload"),
        ("LoadState=not-found\nActiveState=inactive", "no unit sparrow.service is loaded (not-found)", "ok", ""),
        ("LoadState=bad-setting", "no unit sparrow.service is loaded (bad-setting)", "fail", "systemctl --user status"),
        ("", "no unit sparrow.service is loaded (?)", "ok", ""),
    ],
)  # fmt: skip
def test_systemd(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, says: str, words: str, state: str, remedy: str
) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text(f"#!/bin/sh\ncat <<'END'\n{says}\nEND\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    (told,) = [(one, rest) for one, rest in found(tmp_path).items() if words in one]
    assert told[1][:2] == ("systemd", state)
    assert remedy in told[1][2]


def test_a_systemd_that_does_not_answer_and_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    systemctl = tmp_path / "systemctl"
    systemctl.write_text("#!/bin/sh\nexit 1\n")
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert "no session of it for this user" in found(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    assert any(one.startswith("not here") for one in found(tmp_path))


def test_this_machine_has_what_it_takes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    checks = {check: (state, words) for words, (check, state, _) in found(tmp_path).items()}
    assert checks["kernel"][0] == "ok"
    assert checks["cgroups"][0] == "ok"
    assert "sparrow completion bash >" in checks["completion"][1]
    place = tmp_path / ".local/share/bash-completion/completions/sparrow"
    place.parent.mkdir(parents=True)
    place.touch()
    assert "for bash" in found(tmp_path)
