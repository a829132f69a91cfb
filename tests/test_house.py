"""What holds for the whole of the source."""

from __future__ import annotations

import ast
import functools
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import wse
from wse import testing

SOURCE = Path(wse.__file__).parent

# From the ground up: a module imports from its own floor or from below.
FLOORS = [
    ["browser", "codes", "errors", "limits", "messages", "protocol", "protocol5"],
    ["transports", "transports.base"],
    [
        *["stages", "outbox", "inbox", "calls", "backoff", "ring", "deadline"],
        *["signals", "channel", "procedures", "handler", "heartbeat", "admission", "rates"],
        "workers",
        *["pings", "recipients", "devices"],
    ],
    ["stats", "hub", "desk", "auth", "endpoint", "sessions"],
    ["connection", "identity", "registry", "link", "gate", "when", "drain", "sigterm"],
    ["server", "client", "runner"],
    ["__init__"],
]
FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}

# Leaves stand outside: nobody imports them but by name, where they are needed.
CARRIERS = [
    *[
        "transports.memory",
        "transports.tcp",
        "transports.opening",
        "transports.stream",
        "transports.lane",
    ],
    *["transports.frames", "transports.awaited", "transports.asgi", "transports.aiohttp"],
]
COMMANDS = [
    "cli.terminal",
    "cli.talk",
    "cli.story",
    "cli.serving",
    "cli.cast",
    "cli.demo",
    "cli.meeting",
    "cli.commands",
    "cli",
]
APPLICATIONS = ["testing", *COMMANDS, "__main__"]


class Import(NamedTuple):
    """One module of ours that another one imports."""

    module: str
    lazy: bool
    """Within a function."""
    typing: bool
    """For checkers alone."""


def name_of(path: Path) -> str:
    name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
    return name if name == "__init__" else name.removesuffix(".__init__")


MODULES = {name_of(path): path for path in sorted(SOURCE.rglob("*.py"))}


def imported(importer: str) -> Iterator[Import]:
    """The modules of ours that this one imports."""
    path = MODULES[importer]
    package = path.parent.relative_to(SOURCE.parent).parts
    tree = ast.parse(path.read_text(encoding="utf-8"))
    pending: list[tuple[ast.AST, bool, bool]] = [(tree, False, False)]
    while pending:
        node, lazy, typing = pending.pop()
        match node:
            case ast.Import(names):
                for alias in names:
                    yield from _of_ours(alias.name.split("."), lazy=lazy, typing=typing)
            case ast.ImportFrom(module, names, level):
                base = list(package[: len(package) - level + 1]) if level else []
                base += module.split(".") if module else []
                for alias in names:
                    yield from _of_ours([*base, alias.name], lazy=lazy, typing=typing)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                lazy = True
            case ast.If(ast.Name("TYPE_CHECKING")):
                typing = True
        pending.extend((child, lazy, typing) for child in ast.iter_child_nodes(node))


def _of_ours(parts: list[str], *, lazy: bool, typing: bool) -> Iterator[Import]:
    """The module that these dotted parts name, or name something in."""
    if parts[0] != "wse":
        return
    for end in range(len(parts), 0, -1):
        name = ".".join(parts[1:end]) or "__init__"
        if name in MODULES:
            yield Import(name, lazy, typing)
            return


# -- floors ----------------------------------------------------------------------------------------


def test_every_module_has_its_place() -> None:
    assert set(MODULES) <= {*FLOOR, *CARRIERS, *APPLICATIONS}
    assert set(FLOOR) | set(CARRIERS) <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_down(name: str) -> None:
    used = [one for one in imported(name) if not one.typing]
    at_once = {one.module for one in used if not one.lazy}
    if name in FLOOR:
        assert {one for one in at_once if FLOOR.get(one, 99) > FLOOR[name]} == set()
        lazily = {one.module for one in used if one.lazy}
        assert lazily <= set(CARRIERS)
        assert not lazily or FLOOR[name] == FLOOR["server"]
    elif name in CARRIERS:
        assert {one for one in at_once if FLOOR.get(one, 0) > FLOOR["heartbeat"]} == set()


def test_only_applications_and_other_carriers_import_a_carrier_at_once() -> None:
    importers = {
        name
        for name in MODULES
        for one in imported(name)
        if one.module in CARRIERS and not one.lazy and not one.typing
    }
    assert importers <= {*CARRIERS, *APPLICATIONS}


def test_nobody_imports_an_application_but_another_one() -> None:
    importers = {name for name in MODULES for one in imported(name) if one.module in APPLICATIONS}
    assert importers <= set(APPLICATIONS)


def test_nothing_is_imported_in_a_circle() -> None:
    below = {
        name: {one.module for one in imported(name) if not (one.lazy or one.typing)}
        for name in MODULES
    }
    while below:
        free = {name for name, needs in below.items() if not needs & set(below)}
        assert free, f"a circle among {sorted(below)}"
        below = {name: needs for name, needs in below.items() if name not in free}


def test_the_reader_of_imports_sees_what_there_is() -> None:
    server = set(imported("server"))
    assert Import("endpoint", lazy=False, typing=False) not in server
    assert Import("connection", lazy=False, typing=False) in server
    assert Import("transports.tcp", lazy=True, typing=False) in server
    assert Import("transports.tcp", lazy=False, typing=True) in server
    assert Import("codes", lazy=False, typing=False) in set(imported("transports.lane"))


@pytest.mark.parametrize("name", ["codes", "errors", "limits", "messages", "stages", "backoff"])
def test_the_rules_know_no_loop_no_clock_and_no_socket(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    names = {
        alias.name.partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert not names & {"asyncio", "time", "socket", "ssl", "threading", "selectors"}


@pytest.mark.parametrize("start", ["import wse", "import wse.testing"])
def test_importing_the_library_imports_no_command_line_and_no_carrier(start: str) -> None:
    script = f"{start}; import sys; print(*sorted(sys.modules))"
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )
    modules = set(done.stdout.split())
    assert "wse.server" in modules
    programs = {f"wse.{name}" for name in APPLICATIONS if name != "testing"}
    leaves = {"click", "rich", "uvloop", "wse.transports.tcp"} | programs
    assert not modules & leaves
    if start == "import wse":
        assert {one for one in modules if one.startswith("wse.transports.")} == {
            "wse.transports.base"
        }


# -- what is offered -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in MODULES if name != "__main__"])
def test_every_module_says_what_it_offers(name: str) -> None:
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "a module says what it is"
    if len(tree.body) == 1:
        return
    module = importlib.import_module(f"wse.{name}" if name != "__init__" else "wse")
    assert list(module.__all__) == sorted(module.__all__, key=_as_ruff_sorts)
    assert [one for one in module.__all__ if not hasattr(module, one)] == []


def _as_ruff_sorts(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def test_no_module_imports_everything() -> None:
    assert [
        name
        for name, path in MODULES.items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.names[0].name == "*"
    ] == []


def test_the_package_offers_exactly_what_it_imports() -> None:
    tree = ast.parse(MODULES["__init__"].read_text(encoding="utf-8"))
    names = {
        alias.asname or alias.name
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module != "__future__"
        for alias in node.names
    }
    assert names == set(wse.__all__)


def test_every_error_and_every_code_is_offered() -> None:
    for module in ("errors", "codes"):
        offered = set(importlib.import_module(f"wse.{module}").__all__)
        assert {one for one in offered if one[0].isupper()} <= set(wse.__all__)


def undocumented(name: str, thing: Any) -> list[str]:
    """Itself, and what is public and new in it, where there is no docstring."""
    found = [] if thing.__doc__ else [name]
    for one, member in vars(thing).items() if inspect.isclass(thing) else ():
        if one.startswith("_") or any(hasattr(base, one) for base in thing.__bases__):
            continue
        if isinstance(member, property | functools.cached_property):
            found += [] if member.__doc__ else [f"{name}.{one}"]
        elif inspect.isroutine(member) and not getattr(thing, one).__doc__:
            found.append(f"{name}.{one}")
    return found


@pytest.mark.parametrize("module", [wse, testing], ids=lambda module: module.__name__)
def test_everything_public_is_documented(module: ModuleType) -> None:
    found = [
        missing for name in module.__all__ for missing in undocumented(name, getattr(module, name))
    ]
    assert found == []


def test_the_reader_of_docstrings_sees_what_is_missing() -> None:
    class Bare:
        def method(self) -> None: ...

        @property
        def value(self) -> int:
            return 1

        def _private(self) -> None: ...

    assert undocumented("Bare", Bare) == ["Bare", "Bare.method", "Bare.value"]


def test_the_package_is_typed() -> None:
    assert (SOURCE / "py.typed").read_bytes() == b""


@pytest.mark.parametrize("name", MODULES)
def test_nobody_reads_a_clock_that_may_be_set(name: str) -> None:
    """Stepping the wall clock disconnects nobody: all time is the loop's, which is monotonic."""
    tree = ast.parse(MODULES[name].read_text(encoding="utf-8"))
    imported = {
        module
        for node in ast.walk(tree)
        for module in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not imported & {"time", "datetime"}
