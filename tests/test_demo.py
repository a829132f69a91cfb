"""The demo: its story is what happened, and its server stays for visitors."""

from __future__ import annotations

import errno
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from click.testing import CliRunner
from programs import environment
from support import SECRET

from wse import Attempt, WseServer
from wse.cli import cast, demo, main, story

COMMAND = [sys.executable, "-m", "wse", "demo", "--terminal"]

FACTS = """
1 Users and devices
stranger → server hi {"name":"alice","token":"rain-42"}
server • alice joined
server • alice/phone connected
server → alice/phone welcome "Hello, alice!"
server • alice/laptop connected
server → alice/laptop welcome "Hello, alice!"
2 An impostor
stranger → server hi {"name":"alice","token":"sun-1"}
mallory/pc • server closed: 1000 wse.not-authorized
mallory/pc • server connect raised NotAuthorized
3 A challenge
server • stranger holds the key of bob
server → bob/desk welcome "Hello, bob!"
server • stranger does not hold the key of bob
mallory/pc • server closed: 1000 wse.not-authorized
4 Messages
server → alice/phone note "for this phone"
alice/laptop → server say "Hello, everybody!"
5 Procedures
alice/laptop → server call add {"a":5,"b":3}
server → alice/laptop result 8
server → alice/laptop error wse.invalid-payload {"path":"$.a"}
server → bob/desk call battery null
bob → server result {"percent":80}
server → alice/laptop result {"percent":80}
6 One device too many
server • alice/phone disconnected: 1000 wse.clients-concurrency
server • alice/tablet connected
7 A torn connection
server • bob/desk suspended: 1006
server • stranger holds the key of bob
server • bob/desk resumed
server → bob/desk note "while you were away"
"""


def surroundings(**more: str) -> dict[str, str]:
    return environment(PYTHONWARNINGS="error", COLUMNS="80", **more)


def tell(**env: str) -> subprocess.CompletedProcess[str]:
    """The whole story, in a process of its own."""
    return subprocess.run(  # noqa: S603
        [*COMMAND, "--port", "0"],
        env=surroundings(ONCE="1", **env),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.fixture(name="story", scope="module")
def tell_once() -> str:
    """What the story prints into a pipe, on a terminal of 80 columns."""
    told = tell()
    assert (told.returncode, told.stderr) == (0, "")
    return told.stdout


@contextmanager
def staying(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A demo that stays up, and what it printed until it did."""
    with subprocess.Popen(  # noqa: S603
        [*COMMAND, *arguments],
        env=surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process, until(process.stdout, "What you do appears here too.")
        finally:
            process.kill()


def until(stream: IO[str] | None, part: str) -> str:
    """What is printed, up to the line that has this in it."""
    assert stream is not None
    seen = ""
    for line in stream:
        seen += line
        if part in line:
            return seen
    raise AssertionError(f"{part!r} was not printed: {seen}")


def visit(line: str, typed: str) -> subprocess.CompletedProcess[str]:
    """Paste a command line of the demo's into a shell, and type."""
    return subprocess.run(  # noqa: S602
        line,
        shell=True,
        env=surroundings(),
        input=typed,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def pasteable(printed: str, ending: str) -> str:
    (line,) = re.findall(rf"^    (.* connect ws://.*{ending})$", printed, re.MULTILINE)
    assert isinstance(line, str)
    return line


# -- the story ---------------------------------------------------------------------------------


def test_the_story_holds_its_facts_in_order(story: str) -> None:
    lines = iter([" ".join(line.split()).rstrip(" ─") for line in story.splitlines()])
    missing = [fact for fact in FACTS.strip().splitlines() if fact not in lines]
    assert missing == []


@pytest.mark.parametrize(
    ("text", "devices"),
    [
        ('note "for this phone"', ["alice/phone"]),
        ('note "for alice"', ["alice/laptop", "alice/phone"]),
        (
            'said {"who":"alice","text":"Hello, everybody!"}',
            ["alice/laptop", "alice/phone", "bob/desk"],
        ),
    ],
    ids=["one device", "one user", "everybody"],
)
def test_a_message_reaches_those_it_is_for(story: str, text: str, devices: list[str]) -> None:
    assert sorted(re.findall(rf"→ (\S+) +{re.escape(text)}$", story, re.MULTILINE)) == devices


def test_the_story_ends_with_its_own_account(story: str) -> None:
    moments = len(re.findall(r"^  \S+ +[→•] ", story, re.MULTILINE))
    last = story.rstrip("\n").rpartition("\n")[2]
    assert re.fullmatch(rf"  7 chapters, {moments} moments seen in \d+\.\d s\.", last)


def test_the_story_fits_80_columns_and_a_pipe_gets_no_colour(story: str) -> None:
    assert max(map(len, story.splitlines())) == 80
    assert "\x1b" not in story


def test_the_story_is_told_in_plain_signs_where_there_is_no_unicode() -> None:
    told = tell(PYTHONIOENCODING="ascii")
    assert (told.returncode, told.stderr) == (0, "")
    assert 'server       -> alice/phone   note "for this phone"\n' in told.stdout
    assert told.stdout.isascii()


def test_a_signal_during_the_story_ends_it_with_status_0() -> None:
    with subprocess.Popen(  # noqa: S603
        [*COMMAND, "--port", "0"],
        env=surroundings(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        until(process.stdout, "Users and devices")
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=50)
    assert (process.returncode, errors) == (0, "")


# -- what it is worth --------------------------------------------------------------------------


def broadcast_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    broadcast = WseServer.broadcast

    def twice(self: WseServer[Any], *args: Any, **options: Any) -> None:
        broadcast(self, *args, **options)
        broadcast(self, *args, **options)

    monkeypatch.setattr(WseServer, "broadcast", twice)


def send_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WseServer, "send", lambda *_: None)


def believe_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def believe(attempt: Attempt, _: str) -> bool:
        await attempt.challenge({"nonce": "1"})
        return True

    monkeypatch.setattr(cast, "hmac_challenge", believe)


def leave_the_cable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cast.Cable, "cut", lambda _: None)


@pytest.mark.parametrize(
    ("sabotage", "complaint"),
    [
        (broadcast_twice, "nobody expected this: server → alice/phone said"),
        (send_to_nobody, 'did not happen: server → alice/phone note "for alice"'),
        (believe_everybody, "did not happen: mallory/pc • server closed: 1000 wse.not-authorized"),
        (leave_the_cable, "did not happen: bob/desk • server suspended: 1006"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_story_fails_when_the_library_does(
    sabotage: Any, complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sabotage(monkeypatch)
    monkeypatch.setattr(story, "PATIENCE", 1.0)
    result = CliRunner().invoke(main, ["demo", "--terminal", "--once", "--port", "0"])
    assert result.exit_code == 1
    error = result.output.rstrip("\n").rpartition("\n")[2]
    assert error.startswith("Error: The demo failed: ")
    assert complaint in error


def test_a_demo_that_cannot_listen_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def listen(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, SECRET)

    monkeypatch.setattr(WseServer, "listen", listen)
    result = CliRunner().invoke(main, ["demo", "--port", "42"])
    assert (result.exit_code, result.output) == (
        1,
        "Error: cannot listen on port 42: Permission denied\n",
    )


# -- visitors ----------------------------------------------------------------------------------


def test_it_stays_up_and_answers_those_who_paste_its_line() -> None:
    with staying("--port", "0") as (process, printed):
        you = visit(
            pasteable(printed, "--identity you"),
            'call whoami\ncall add {"a": 1, "b": 0.5}\ncall who\ncall battery {"who": "bob"}\n',
        )
        assert (you.returncode, you.stderr) == (0, "")
        assert '← whoami = {"you":"you","devices":1,"address":"127.0.0.1"}\n' in you.stdout
        assert "← add = 1.5\n" in you.stdout
        assert '← who = ["alice","bob","you"]\n' in you.stdout
        assert '← battery = {"percent":80}\n' in you.stdout
        seen = until(process.stdout, "left: 1000 wse.by-client")
        assert 'you          → server        call add {"a":1,"b":0.5}\n' in seen

        bob = visit(pasteable(printed, "--identity bob --key tulip-7"), 'send say "me again"\n')
        assert (bob.returncode, bob.stderr) == (0, "")
        assert 'bob          → server        say "me again"' in until(
            process.stdout, "disconnected"
        )

        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=50)
    assert (process.returncode, errors) == (0, "")
    assert "closed" not in rest


def test_a_port_that_is_taken_is_left_alone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with staying("--port", str(port)) as (process, printed):
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=50)
    assert printed.startswith(f"Port {port} is taken, so the server takes a free one.\n")
    assert f":{port} " not in pasteable(printed, "--identity you")
    assert process.returncode == 0


def test_the_line_to_paste_names_this_very_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bin_ = tmp_path / "a b" / "bin"
    bin_.mkdir(parents=True)
    python, script = bin_ / "python", bin_ / "wse"
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", "")
    assert demo._program() == f"'{python}' -m wse"
    script.touch(mode=0o755)
    assert demo._program() == f"'{script}'"
    monkeypatch.chdir(tmp_path)
    assert demo._program() == "'a b/bin/wse'"
    monkeypatch.setenv("PATH", str(bin_))
    assert demo._program() == "wse"
