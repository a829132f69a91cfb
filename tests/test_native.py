"""The hot path as machine code, as `make native` builds it: the same tests hold for it."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NATIVE = Path(sys.prefix) / "native"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
COMPILED = PYPROJECT["tool"]["hatch"]["build"]["hooks"]["mypyc"]["include"]
SUITE = (
    "attacks",
    "auth",
    "bad_input",
    "calls",
    "client",
    "connection",
    "drain",
    "endpoint",
    "frames",
    "inbox",
    "interleaving",
    "lane",
    "lifecycle",
    "link",
    "outbox",
    "replies",
    "rfc6455",
    "ring",
    "secrets",
    "server",
    "stages",
    "stream",
    "survival",
    "tcp",
    "threads",
    "wire",
)
WHERE = "import sys, importlib; print(*(importlib.import_module(m).__file__ for m in sys.argv[1:]))"

MYPYCS_OWN = "ignore:the (type:DeprecationWarning"
"""Of how it throws into a coroutine of Python, since Python 3.12."""

pytestmark = pytest.mark.skipif(
    not NATIVE.exists(), reason="there is no native build here: it takes a C compiler"
)


def run(*arguments: str) -> str:
    done = subprocess.run(  # noqa: S603 - Python, with what stands above
        [sys.executable, *arguments],
        env={
            **os.environ,
            "PYTHONPATH": str(NATIVE),
            "PYTHONWARNINGS": f"error,{MYPYCS_OWN}",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_should_be_machine_code_is() -> None:
    names = [path.removeprefix("src/").removesuffix(".py").replace("/", ".") for path in COMPILED]
    files = run("-c", WHERE, *names).split()
    assert [Path(file).parent for file in files] == [
        (NATIVE / path.removeprefix("src/")).parent for path in COMPILED
    ]
    assert {Path(file).suffix for file in files} == {".so"}


@pytest.mark.timeout(900)
def test_it_passes_the_tests_of_the_python_that_it_is_made_of() -> None:
    files = [f"tests/test_{name}.py" for name in SUITE]
    options = ("-q", "-p", "no:cacheprovider", "-W", "error", "-W", MYPYCS_OWN)
    said = run("-m", "pytest", *options, *files)
    assert " passed" in said
    assert "failed" not in said
