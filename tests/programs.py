"""Commands in processes of their own, and within this one."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from click.testing import CliRunner

import wse
from wse import WseConnection, WseServer
from wse.cli import main

PATH = os.pathsep.join(str(Path(file).parent) for file in (Path(wse.__file__).parent, __file__))


def environment(**more: str) -> dict[str, str]:
    """Of a program that finds the library, and that the wiretap listens to."""
    return {**os.environ, "PYTHONPATH": PATH, **more}


class Program:
    """`python -m wse ...` in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        assert process.stdout is not None
        self._stdout = process.stdout

    async def until(self, part: str) -> str:
        """The next line that has this in it."""
        seen = ""
        while line := (await self._stdout.readline()).decode():
            if part in line:
                return line.rstrip("\n")
            seen += line
        _, errors = await self.process.communicate()
        raise AssertionError(f"{part!r} was not printed: {seen}{errors.decode()}")

    def type(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())

    async def end(self, *, typed: str = "") -> tuple[int | None, str, str]:
        """Type the last lines; status, what it printed still, and its errors."""
        out, errors = await self.process.communicate(typed.encode() if self.process.stdin else None)
        return self.process.returncode, out.decode(), errors.decode()


@asynccontextmanager
async def program(
    *arguments: str,
    cwd: Path | None = None,
    stdin: int = subprocess.PIPE,
    env: Mapping[str, str] = MappingProxyType({}),
) -> AsyncIterator[Program]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "wse",
        *arguments,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=cwd,
        env=environment(PYTHONWARNINGS=os.environ.get("PYTHONWARNINGS", "error"), **env),
    )
    try:
        yield Program(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def connect(
    url: str, *arguments: str, typed: str = "", **env: str
) -> tuple[int | None, str, str]:
    """Run `wse connect` with these lines on its pipe; status, output and errors."""
    async with program("connect", url, *arguments, env=env) as talk:
        return await talk.end(typed=typed)


def invoke(*arguments: str) -> tuple[int, str]:
    """Run a command in this process; status and what it printed."""
    result = CliRunner().invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def last_line(output: str) -> str:
    return output.rstrip("\n").rpartition("\n")[2]


def make_server() -> WseServer[Any]:
    server: WseServer[Any] = WseServer(lambda attempt: attempt.accept("someone", {"n": 1}))

    @server.register("add")
    def add(_: WseConnection, numbers: dict[str, int]) -> int:
        return numbers["a"] + numbers["b"]

    @server.channel.on("echo")
    def echo(conn: WseConnection, payload: Any) -> None:
        conn.send("echoed", payload)

    @server.channel.on("ask")
    async def ask(conn: WseConnection, name: str) -> None:
        try:
            conn.send("answered", await conn.call(name, {"v": 1}))
        except wse.CallNotRegistered:
            conn.send("unanswered", name)

    @server.channel.on("go")
    def go(conn: WseConnection, reason: str) -> None:
        conn.drop(reason)

    return server


@asynccontextmanager
async def serving(server: WseServer[Any]) -> AsyncIterator[str]:
    async with server.listen(port=0) as listener:
        yield f"ws://127.0.0.1:{listener.port}"
