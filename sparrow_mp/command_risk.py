"""How risky a command looks, by its words. Pure.

It is a guard against mistakes, not a wall: a program that means harm can do it in words that nobody here knows.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator
from itertools import pairwise, takewhile

from sparrow_mp.events import Risk

_DESTRUCTIVE = frozenset(
    [
        "dd",
        "fdisk",
        "halt",
        "kill",
        "killall",
        "mkswap",
        "parted",
        "pkill",
        "poweroff",
        "reboot",
        "rmdir",
        "sgdisk",
        "shred",
        "shutdown",
        "srm",
        "su",
        "sudo",
        "doas",
        "truncate",
        "umount",
        "unlink",
        "userdel",
        "wipefs",
    ]
)
_NETWORK = frozenset(
    [
        "apt",
        "apt-get",
        "curl",
        "dnf",
        "ftp",
        "gh",
        "nc",
        "ncat",
        "netcat",
        "ping",
        "pip",
        "pip3",
        "pipx",
        "rsync",
        "scp",
        "sftp",
        "socat",
        "ssh",
        "telnet",
        "uv",
        "uvx",
        "wget",
        "npm",
        "npx",
        "pnpm",
        "yarn",
        "bun",
        "brew",
        "cargo",
        "go",
    ]
)
_SHELLS = frozenset(["sh", "bash", "dash", "zsh", "ksh", "fish"])
_WRAPPERS = frozenset(
    [
        "command",
        "builtin",
        "env",
        "exec",
        "ionice",
        "nice",
        "nohup",
        "setsid",
        "stdbuf",
        "time",
        "timeout",
        "watch",
        "xargs",
    ]
)
_FETCHES = frozenset(["clone", "fetch", "ls-remote", "pull", "push", "submodule"])
_LOCAL_TOOLS = {
    "cargo": {"build", "check", "clippy", "fmt", "test", "bench", "run"},
    "go": {"build", "fmt", "test", "vet", "run"},
    "npm": {"test", "run", "start", "t"}, "pnpm": {"test", "run"}, "yarn": {"test", "run"}, "bun": {"test", "run"},
    "uv": {"run"},
}  # fmt: skip
"""Programs that are both: with these words they do not fetch, or only what is there already."""
_SQL = re.compile(r"\b(drop\s+(table|database|schema)|truncate\s+table|delete\s+from)\b", re.IGNORECASE)
_SPLITS = frozenset({";", "|", "||", "&", "&&", "|&", "(", ")", "\n", ";;", "{", "}", "!"})
_KEYWORDS = frozenset(["if", "then", "else", "elif", "do", "while", "until"])
_SEVERITY: dict[Risk, int] = {"Exec": 0, "Network": 1, "Destructive": 2}
_DEEPEST = 8


def risk_of_command(command: str | list[str]) -> Risk:
    """How risky a command looks, a line for a shell or an argv: `Exec`, `Network` or `Destructive`, the worst that is in it."""
    if isinstance(command, list):
        return _risk_of_words(command, 0)
    return _risk_of_line(command, 0)


def _worst(risks: Iterable[Risk]) -> Risk:
    worst: Risk = "Exec"
    for risk in risks:
        worst = risk if _SEVERITY[risk] > _SEVERITY[worst] else worst
    return worst


def _risk_of_line(line: str, depth: int) -> Risk:
    if depth > _DEEPEST:
        return "Destructive"  # nobody writes such a thing to be understood
    found: list[Risk] = ["Destructive"] if _SQL.search(line) else []
    found.extend(_risk_of_words(words, depth) for words in _commands(line))
    return _worst(found)


def _commands(text: str) -> Iterator[list[str]]:
    """The simple commands of a script. Where it cannot be taken apart as a whole, or has comments, each line by itself too."""
    try:
        yield from _split(_tokens(text))
        if "#" not in text:
            return
    except ValueError:
        pass
    for line in text.split("\n"):
        try:
            yield from _split(_tokens(line))
        except ValueError:
            yield from _split(re.findall(r"[;|&()]|[^\s;|&()]+", line))


def _tokens(text: str) -> list[str]:
    lexer = shlex.shlex(text.replace("\\\n", " "), posix=True, punctuation_chars=";|&()<>\n")
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    lexer.commenters = ""
    return list(lexer)


def _split(tokens: list[str]) -> Iterator[list[str]]:
    words: list[str] = []
    for token in tokens:
        if token in _SPLITS or (token and not token.strip(";|&()\n")):
            if words:
                yield words
            words = []
        else:
            words.append(token)
    if words:
        yield words


def _risk_of_words(words: list[str], depth: int) -> Risk:
    """One simple command: its program after keywords, assignments and wrappers, and what it is given."""
    inner: list[Risk] = [_risk_of_line(part, depth + 1) for word in words for part in _substitutions(word)]
    if _overwrites_device(words):
        return "Destructive"
    rest = _without_prefix(words)
    if rest:
        inner.append(_risk_of_program(os.path.basename(rest[0]), rest[1:], depth))
    return _worst(inner)


def _substitutions(word: str) -> list[str]:
    """The commands that a word has in it: `$(…)` and backticks, which shlex leaves in place."""
    return [part for part in re.split(r"\$\(|`|\)", word)[1:] if part.strip()] if "$(" in word or "`" in word else []


def _overwrites_device(words: list[str]) -> bool:
    return any(word.startswith("/dev/") and word not in _HARMLESS_DEVICES for word in _redirected(words))


_HARMLESS_DEVICES = frozenset({"/dev/null", "/dev/stdout", "/dev/stderr", "/dev/tty"})


def _redirected(words: list[str]) -> Iterator[str]:
    for before, word in pairwise(words):
        if ">" in before and not before.strip("<>&|"):
            yield word


def _without_prefix(words: list[str]) -> list[str]:
    """The words from the program on."""
    rest = list(words)
    while rest and (re.match(r"\w+=", rest[0]) or rest[0] in _KEYWORDS or rest[0] in ("{", "!", "$")):
        rest.pop(0)
    return rest


def _risk_of_program(program: str, args: list[str], depth: int) -> Risk:
    flags = "".join(word.lstrip("-") for word in takewhile(lambda word: word != "--", args) if re.match(r"-\w", word))
    if program in _DESTRUCTIVE or program.startswith("mkfs") or _is_destructive(program, args, flags):
        return "Destructive"
    if program in _WRAPPERS:
        # Which of its words is the program depends on its options: take the worst of all that it could be.
        could = [n for n, word in enumerate(args) if os.path.basename(word) not in _WRAPPERS]
        found: list[Risk] = [_risk_of_program(os.path.basename(args[n]), args[n + 1 :], depth) for n in could]
        return _worst(found)
    if program == "eval":
        return _risk_of_line(" ".join(args), depth + 1)
    if program in _SHELLS:
        return _risk_of_shell(args, depth)
    if program == "git":
        return "Network" if _FETCHES.intersection(args) else "Exec"
    if program in _NETWORK:
        return "Exec" if args and args[0] in _LOCAL_TOOLS.get(program, ()) else "Network"
    return "Exec"


def _risk_of_shell(args: list[str], depth: int) -> Risk:
    for n, word in enumerate(args):
        if re.fullmatch(r"-\w*c", word):
            return _risk_of_line(" ".join(args[n + 1 : n + 2]), depth + 1)
    return "Exec" if any(not word.startswith("-") for word in args) else "Destructive"  # it runs what is piped into it


def _is_destructive(program: str, args: list[str], flags: str) -> bool:
    match program:
        case "rm":
            return True
        case "chmod" | "chown" | "chgrp":
            return "R" in flags or "--recursive" in args
        case "find" | "fd":
            return bool({"-delete", "-exec", "-execdir", "-x", "-X"}.intersection(args)) and _deletes(args)
        case "git":
            return _git_destroys(args)
        case "docker" | "podman" | "kubectl":
            return bool({"rm", "rmi", "prune", "delete", "kill", "down"}.intersection(args))
        case "mv" | "cp" | "tee":
            return any(word.startswith("/dev/") and word not in _HARMLESS_DEVICES for word in args)
        case "systemctl":
            return not {"status", "show", "cat", "list-units", "is-active"}.intersection(args)
        case "crontab":
            return "r" in flags
        case _:
            return False


def _deletes(args: list[str]) -> bool:
    return "-delete" in args or any(os.path.basename(word) in {"rm", "shred", "unlink", "rmdir"} for word in args)


_GIT_DESTROYS = {
    "push": {"-f", "--force", "--force-with-lease", "--mirror", "--delete", "-d", "--prune"},
    "reset": {"--hard"},
    "branch": {"-D", "--delete", "-d"},
    "checkout": {"-f", "--force", "--", "."},
    "restore": {"."},
    "switch": {"-f", "--force", "--discard-changes"},
    "stash": {"drop", "clear"},
    "reflog": {"expire", "delete"},
    "tag": {"-d", "--delete"},
    "worktree": {"remove"},
}


def _git_destroys(args: list[str]) -> bool:
    """Whether it throws away work that git does not bring back, or rewrites what others have."""
    for n, verb in enumerate(args):
        if verb in ("clean", "filter-branch", "filter-repo", "gc"):
            return verb != "gc" or "--prune=now" in args
        if verb in _GIT_DESTROYS:
            rest = args[n + 1 :]
            forced = verb == "push" and any(word.startswith(("+", ":")) for word in rest)
            short = any(re.fullmatch(r"-[a-zA-Z]*[fD][a-zA-Z]*", word) for word in rest) and verb in ("push", "branch")
            return forced or short or bool(_GIT_DESTROYS[verb].intersection(rest))
    return False
