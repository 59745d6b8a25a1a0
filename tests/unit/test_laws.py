"""The laws of the house, as far as the source itself shows whether they are kept."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from sparrow_mp.run.engines import BUILT_IN

TOP = Path(__file__).parents[2]
ROOTS = {"sparrow_mp": TOP, "sparrow_supervisor": TOP / "supervisor"}


@cache
def modules() -> dict[str, Path]:
    """Every module of ours by its name."""
    found: dict[str, Path] = {}
    for package, root in ROOTS.items():
        for path in (root / package).rglob("*.py"):
            parts = list(path.relative_to(root).with_suffix("").parts)
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


@cache
def tree_of(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def imported(node: ast.AST) -> Iterator[str]:
    """What one statement imports: modules, and names of modules, which may be modules themselves."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield alias.name
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "we import absolutely"
        assert node.module is not None
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            yield whole if whole in modules() else node.module


@cache
def imports_of(module: str) -> frozenset[str]:
    """All that a module imports anywhere: at its top, in a function, for its types."""
    return frozenset(name for node in ast.walk(tree_of(module)) for name in imported(node))


def imports_at_once(module: str) -> set[str]:
    """What is imported when the module is: neither what a function imports nor what is for types only."""
    found: set[str] = set()
    todo: list[ast.AST] = [*tree_of(module).body]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        found.update(imported(node))
        todo.extend(ast.iter_child_nodes(node))
    return found


def of(package: str) -> list[str]:
    return sorted(name for name in modules() if name == package or name.startswith(f"{package}."))


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def ours(names: frozenset[str]) -> set[str]:
    return {name for name in names if within(name, *ROOTS)}


def loaded_by(module: str) -> set[str]:
    """What a fresh interpreter has loaded once it has imported the module."""
    script = (
        f"import sys; sys.path[:0] = {[str(root) for root in ROOTS.values()]}; import {module}; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_modules_are_found() -> None:
    """So that no law is kept only because nothing was looked at."""
    assert {"sparrow_mp.events", "sparrow_mp.cli.render", "sparrow_supervisor.core.life", "sparrow_mp"} <= set(
        modules()
    )
    assert "sparrow_mp.run.outbox" in imports_of("sparrow_mp.run.context")
    assert "sparrow_supervisor.reactor" in imports_of("sparrow_supervisor.desk")
    assert "sparrow_supervisor.reactor" not in imports_at_once("sparrow_supervisor.desk")


# ── 1: the core is pure ──

PURE = {
    "__future__", "calendar", "collections", "dataclasses", "datetime", "enum", "functools", "heapq", "itertools", "math",
    "re", "typing", "zoneinfo",
}  # fmt: skip
PURE_OF_OURS = ("sparrow_mp.events", "sparrow_mp.wire", "sparrow_mp.cron", "sparrow_mp.job_memory")
NOT_PURE = {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint"}


@pytest.mark.parametrize("module", of("sparrow_supervisor.core"))
def test_the_core_imports_nothing_that_does_anything(module: str) -> None:
    for name in imports_of(module):
        allowed = within(name, "sparrow_supervisor.core", *PURE, *PURE_OF_OURS)
        assert allowed, f"{module} imports {name}"


@pytest.mark.parametrize("module", of("sparrow_supervisor.core"))
def test_the_core_opens_nothing(module: str) -> None:
    names = {node.id for node in ast.walk(tree_of(module)) if isinstance(node, ast.Name)}
    assert not names & NOT_PURE
    attributes = {node.attr for node in ast.walk(tree_of(module)) if isinstance(node, ast.Attribute)}
    assert not attributes & {"now", "utcnow", "today"}, "the moment comes in with each input"


def test_the_core_needs_no_loop_and_no_socket() -> None:
    loaded = loaded_by("sparrow_supervisor.core.house")
    assert "sparrow_supervisor.core.house" in loaded
    assert not loaded & {"asyncio", "zmq", "socket", "select", "sqlite3", "subprocess", "logging", "threading.local"}


# ── 2: imports point one way ──


@pytest.mark.parametrize("module", of("sparrow_mp"))
def test_the_library_does_not_know_the_daemon(module: str) -> None:
    assert not [name for name in imports_of(module) if within(name, "sparrow_supervisor")]


@pytest.mark.parametrize("module", of("sparrow_supervisor"))
def test_the_daemon_knows_neither_the_command_line_nor_the_engines(module: str) -> None:
    assert not [name for name in imports_of(module) if within(name, "sparrow_mp.cli", "sparrow_mp.engines")]


@pytest.mark.parametrize("module", of("sparrow_mp.engines"))
def test_an_engine_needs_what_any_engine_may_use(module: str) -> None:
    engine = module.removeprefix("sparrow_mp.engines").lstrip(".").partition("_")[0]
    own = {other for other in of("sparrow_mp.engines") if other.startswith(f"sparrow_mp.engines.{engine}_")}
    others = {
        "sparrow_mp.run.context",
        "sparrow_mp.events",
        "sparrow_mp.autonomy",
        "sparrow_mp.command_risk",
        "sparrow_mp.agents",
    }
    places = {
        "sparrow_mp.errors",
        "sparrow_mp.paths",
        "sparrow_mp.quantities",
        "sparrow_mp.model_address",
    }  # a server has
    models = {
        "sparrow_mp.config",
        "sparrow_mp.settings",
        "sparrow_mp.local_model",
        "sparrow_mp.transcript",
    }  # a loop around a model has
    small = {"sparrow_mp", "sparrow_mp.regular"}
    assert ours(imports_of(module)) <= others | places | models | small | own


@pytest.mark.parametrize("module", of("sparrow_supervisor.adapters"))
def test_an_adapter_needs_nothing_else_of_the_daemon(module: str) -> None:
    assert not [
        name
        for name in ours(imports_of(module))
        if within(name, "sparrow_supervisor") and not within(name, "sparrow_supervisor.adapters")
    ]


def test_the_adapters_do_not_load_the_reactor() -> None:
    loaded = loaded_by("sparrow_supervisor.adapters.__main__")
    assert "sparrow_supervisor.adapters.__main__" in loaded
    assert not {
        name for name in loaded if within(name, "sparrow_supervisor.reactor", "sparrow_supervisor.core", "sqlite3")
    }


LAYERS = [
    ["sparrow_mp._version", "sparrow_mp.errors", "sparrow_mp.failpoints", "sparrow_mp.quantities", "sparrow_mp.regular",
     "sparrow_mp.retention", "sparrow_mp.setting_kinds"],
    ["sparrow_mp.events"],
    ["sparrow_mp.wire", "sparrow_mp.cron", "sparrow_mp.autonomy", "sparrow_mp.command_risk",
     "sparrow_mp.allowed"],
    ["sparrow_mp.paths", "sparrow_mp.settings", "sparrow_mp.config", "sparrow_mp.config_example", "sparrow_mp.transcript",
     "sparrow_mp.jobs", "sparrow_mp.jobs_file", "sparrow_mp.job_memory", "sparrow_mp.job_rows", "sparrow_mp.model_address",
     "sparrow_mp.agents", "sparrow_mp.settings_models"],
    ["sparrow_mp.run"],
    ["sparrow_mp.ears", "sparrow_mp.service", "sparrow_mp.launch", "sparrow_mp.connect", "sparrow_mp.asking", "sparrow_mp.follow",
     "sparrow_mp.client", "sparrow_mp.aclient", "sparrow_mp.local_model"],
    ["sparrow_mp.cli"],
]  # fmt: skip
"""Events ← wire ← transcript, run, client ← the command line: who is in one line knows those above it, and its own."""
APART = ["sparrow_mp.engines", "sparrow_mp"]
"""What other laws are about: the engines, and the package itself, which hands out what users import."""


def layer(module: str) -> int:
    return next(number for number, packages in enumerate(LAYERS) if within(module, *packages))


def test_every_module_has_its_place() -> None:
    for module in of("sparrow_mp"):
        assert within(module, "sparrow_mp.engines", *itertools.chain(*LAYERS)) or module in APART, module


@pytest.mark.parametrize(
    "module", [name for name in of("sparrow_mp") if not within(name, *APART[:1]) and name != APART[1]]
)
def test_imports_point_one_way(module: str) -> None:
    for name in ours(imports_of(module)):
        if name == "sparrow_mp":
            assert layer(module) >= layer("sparrow_mp.client"), f"{module} imports the whole package"
        else:
            assert layer(name) <= layer(module), f"{module} imports {name}"


def test_no_imports_go_round_in_a_circle() -> None:
    going: list[str] = []
    done: set[str] = set()

    def visit(module: str) -> None:
        assert module not in going, f"a circle: {' → '.join([*going[going.index(module) :], module])}"
        if module in done:
            return
        going.append(module)
        for name in sorted(imports_at_once(module)):
            if name in modules() and name != module:
                visit(name)
        going.pop()
        done.add(module)

    for module in modules():
        visit(module)
    assert done == set(modules())


# ── 4: nothing in the reactor waits ──

WAITS = {("time", "sleep"), ("subprocess", "run"), ("subprocess", "check_output"), ("os", "system"), ("os", "waitpid")}
MAY_WAIT = {
    "sparrow_supervisor.__main__",  # for the lock, before anything turns
    "sparrow_supervisor.zygote",  # a process of its own, which waits for nothing but its children
    "sparrow_supervisor.revival",  # part of it
    "sparrow_supervisor.spares",  # part of it
    "sparrow_supervisor.notifier",  # a process of its own, which waits for what it calls
    "sparrow_supervisor.adapters.unix",  # for an earlier one to let go of its socket, before anybody is served
    "sparrow_supervisor.zygote_client",  # for the zygote, when it is made
    "sparrow_supervisor.unit_zygote",  # the same, before anything turns
}


@pytest.mark.parametrize("module", [name for name in of("sparrow_supervisor") if name not in MAY_WAIT])
def test_nothing_waits_in_the_loop(module: str) -> None:
    called = {
        (node.func.value.id, node.func.attr)
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Name)
    }
    assert not called & WAITS


# ── 5: words ──


@pytest.mark.parametrize("module", modules())
def test_whoever_catches_everything_says_why(module: str) -> None:
    lines = modules()[module].read_text(encoding="utf-8").splitlines()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.ExceptHandler) and catches_everything(node.type) and not raises_again(node):
            around = lines[node.lineno - 1 : node.lineno + 1]
            assert any("#" in line for line in around), f"{module}:{node.lineno}: {around[0].strip()}"


def catches_everything(kind: ast.expr | None) -> bool:
    names = {node.id for node in ast.walk(kind) if isinstance(node, ast.Name)} if kind is not None else {"Exception"}
    return bool(names & {"Exception", "BaseException"})


def raises_again(handler: ast.ExceptHandler) -> bool:
    """It only clears up."""
    return isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None


@pytest.mark.parametrize("module", modules())
def test_a_logger_bears_the_name_of_its_module(module: str) -> None:
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "getLogger":
            argument = ast.unparse(node.args[0]) if node.args else ""
            # A module that is run as a program says its name itself.
            assert argument in ("__name__", "", repr(module), repr(module.removesuffix(".__main__"))), module


def test_our_engines_are_those_that_the_package_announces() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["sparrow.engines"] == BUILT_IN
