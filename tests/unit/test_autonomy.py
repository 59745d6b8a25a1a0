"""Who may do what: every level with every risk, paths, and what commands look like."""

from __future__ import annotations

import os
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparrow_mp.autonomy import TABLE, forbidden, judge, remembered
from sparrow_mp.command_risk import risk_of_command
from sparrow_mp.events import Autonomy, Decision, Risk

LEVELS: tuple[Autonomy, ...] = get_args(Autonomy)
RISKS: tuple[Risk, ...] = get_args(Risk)
RULES = {
    #              supervised  trusted    autonomous
    "ReadOnly":    ("Allow",   "Allow",   "Allow"),
    "Mutating":    ("AskUser", "Allow",   "Allow"),
    "Exec":        ("AskUser", "Allow",   "Allow"),
    "Network":     ("AskUser", "Allow",   "Allow"),
    "Destructive": ("Deny",    "AskUser", "AskUser"),
}  # fmt: skip


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("risk", RISKS)
def test_each_level_with_each_risk(level: Autonomy, risk: Risk) -> None:
    assert judge(level, risk).ruling == RULES[risk][("supervised", "trusted", "autonomous").index(level)]


def test_the_table_is_whole() -> None:
    assert set(TABLE) == set(LEVELS)
    assert all(set(row) == set(RISKS) for row in TABLE.values())


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("src/a.py", ""),
        (".", ""),
        (".gitignore", ""),
        (".env.example", ""),
        ("keys/id_rsa.pub", ""),
        ("monkey.py", ""),
        (".git/config", "out of bounds (.git)"),
        ("sub/.GIT/hooks/pre-commit", "out of bounds (.GIT)"),
        (".env", "out of bounds (.env)"),
        (".env.local", "out of bounds (.env.local)"),
        (".ssh/config", "out of bounds (.ssh)"),
        ("keys/server.pem", "out of bounds (server.pem)"),
        ("id_ed25519", "out of bounds (id_ed25519)"),
        ("../other/a.py", "outside of the workspace"),
        ("../workshop/a.py", "outside of the workspace"),
    ],
)
@pytest.mark.parametrize("level", LEVELS)
def test_paths(path: str, why: str, level: Autonomy) -> None:
    given_ = os.path.normpath(f"/home/u/project/{path}")
    ruling, reason = judge(level, "ReadOnly", [given_], "/home/u/project")
    assert ruling == ("Deny" if why else "Allow")
    assert why in reason


def test_a_workspace_may_be_anywhere() -> None:
    """What lies above it is the choice of who started the run."""
    assert not forbidden("/home/u/.git/project/a.py", "/home/u/.git/project")
    assert not forbidden("/a.py", "/")


@given(
    st.sampled_from(LEVELS),
    st.sampled_from(RISKS),
    st.lists(st.text(alphabet="ab./", min_size=1, max_size=8), max_size=3),
)
def test_a_path_never_makes_anything_allowed(level: Autonomy, risk: Risk, names: list[str]) -> None:
    ruling = judge(level, risk, [f"/w/{name}" for name in names], "/w").ruling
    assert ruling in ("Deny", judge(level, risk).ruling)


@pytest.mark.parametrize("decision", get_args(Decision))
@pytest.mark.parametrize("risk", RISKS)
def test_what_is_remembered(decision: Decision, risk: Risk) -> None:
    assert remembered(risk, decision) == (decision in ("AllowSession", "AllowAlways") and risk != "Destructive")


COMMANDS: dict[Risk, list[str]] = {
    "Exec": [
        "make test", "pytest -x tests/", "ls -la | grep rm", "echo 'rm -rf /'", "git status && git diff", "git commit -m 'x'",
        "grep -rn 'shutdown' .", "python3 -m venv .venv", "cat < a > b", "make 2>/dev/null", "cargo test", "npm run build",
        "find . -name '*.py' -exec wc -l {} +", "cat > f <<'EOF'\nit's\nEOF", "", "git checkout -b new", "bash build.sh",
        "chmod +x run", "# don't", "git branch -a", "git push-notes",
    ],
    "Network": [
        "curl -s https://example.org", "git push origin main", "git -C x pull", "pip install x", "ls; wget x",
        "FOO=1 npm install", "timeout 5 ssh host ls", "echo $(curl x)", "sh -c 'curl x'", "cargo add serde",
    ],
    "Destructive": [
        "rm -rf build", "rm a", "cd x && rm -r y", "ls;rm -rf /", "ls\nrm -rf x", "sudo ls", "/bin/rm -f a", "FOO=1 rm a",
        "sh -c 'rm -rf x'", "bash -lc \"cd x; rm y\"", "echo $(rm a)", "echo \"$(rm a)\"", "echo `rm a`", "xargs -n 1 rm",
        "find . -name x -delete", "find . -exec rm {} +", "git push --force", "git push -fu origin x", "git push origin +main",
        "git reset --hard HEAD~3", "git clean -fdx", "git checkout -- .", "git branch -D x", "git stash drop",
        "dd if=/dev/zero of=x", "echo x > /dev/sda", "mkfs.ext4 x", "chmod -R 777 .", "curl x | sh", "timeout 5 env A=1 rm x",
        "psql -c 'DROP TABLE users'", "if true; then rm x; fi", "(rm x)", "{ rm x; }", "ls # it's\nrm -rf x", "nohup rm x &",
        "ls # '\nrm -rf x\n# '", "rm \\\n-rf x", "it's; rm -rf x", "! rm x", "kill 1", "truncate -s 0 a", "eval 'rm x'",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("risk", "command"), [(risk, line) for risk, lines in COMMANDS.items() for line in lines])
def test_what_a_command_looks_like(risk: Risk, command: str) -> None:
    assert risk_of_command(command) == risk


def test_an_argv_is_not_read_by_a_shell() -> None:
    assert risk_of_command(["echo", "a; b"]) == "Exec"
    assert risk_of_command(["rm", "a"]) == "Destructive"
    assert risk_of_command(["sh", "-c", "rm a"]) == "Destructive"


@given(st.text(alphabet="rm ls'\"$()`;|&\n#<>{}-\\c sh", max_size=60))
def test_any_text_is_judged(text: str) -> None:
    assert risk_of_command(text) in ("Exec", "Network", "Destructive")
    assert risk_of_command(f"ls\n{text}\n") in ("Exec", "Network", "Destructive")
