"""What is shipped: the wheel, installed by itself and used from elsewhere."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

STORY = """
import asyncio, wse
from wse import WseClient, WseServer

async def main():
    server = WseServer(lambda attempt: attempt.accept(attempt.identity, wse.__file__))
    async with server.listen(port=0) as listener:
        async with WseClient(f"ws://127.0.0.1:{listener.port}") as client:
            print(await client.connect("alice"))

asyncio.run(main())
"""


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(  # noqa: S603
        command, cwd=cwd, capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder))
    run(sys.executable, "-m", "pip", "wheel", *options, str(ROOT), cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    source = ROOT / "src"
    expected = {
        str(path.relative_to(source))
        for path in (source / "wse").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == expected
    assert "wse/py.typed" in names


def test_the_wheel_runs_without_the_source_tree(wheel: Path, tmp_path: Path) -> None:
    target = tmp_path / "site"
    options = ("--quiet", "--no-deps", "--no-index", "--target", str(target))
    run(sys.executable, "-m", "pip", "install", *options, str(wheel), cwd=tmp_path)
    story = f"import sys; sys.path.insert(0, {str(target)!r}){STORY}"
    printed = run(sys.executable, "-c", story, cwd=tmp_path).strip()
    assert printed == str(target / "wse" / "__init__.py")
