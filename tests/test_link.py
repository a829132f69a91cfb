"""One connection of a client: the device's side of the handshake, against a server of the test."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from support import Boom

from wse import (
    CallFailed,
    CallNotRegistered,
    ConnectionFailed,
    InvalidPayload,
    Limits,
    NotAuthorized,
    ProtocolViolation,
    Status,
    WseClient,
    WseError,
    testing,
)
from wse.transports.base import Handshake, Transport
from wse.transports.memory import MemoryDialer


class ScriptedServer:
    """Takes connections, notes what they say, and says what the test wants, in the classic way."""

    limits = Limits()

    def __init__(self) -> None:
        self.frames: list[Any] = []
        self.ends: list[tuple[int, str]] = []
        self.transport: Transport

    def vet(self, handshake: Handshake) -> None:
        """Everybody may come."""

    def select(self, offered: Sequence[str]) -> str | None:
        return "wse-default-json"

    def open(self, transport: Transport, handshake: Handshake, subprotocol: str | None) -> None:
        self.transport = transport
        transport.start(self)

    def receive(self, data: bytes, text: bool) -> None:
        self.frames.append(json.loads(data))

    def flush(self) -> None:
        """Nothing waits here."""

    def writable(self) -> None:
        """Nothing waits here."""

    def lost(self, code: int, reason: str, *, failed: bool = False) -> None:
        self.ends.append((code, reason))

    def say(self, *message: Any) -> None:
        self.say_raw(json.dumps(message).encode())

    def say_raw(self, data: bytes) -> None:
        self.transport.write([data])


class Story:
    """A client that connects to such a server, and what it has told."""

    def __init__(self, **options: Any) -> None:
        self.server = ScriptedServer()
        self.dialer = MemoryDialer(self.server)
        self.client = WseClient("ws://test/", dial=self.dialer, **options)
        self.told: list[Any] = []
        self.errors: list[WseError] = []
        self.client.when.ready(lambda welcome: self.told.append(("ready", welcome)))
        self.client.when.ignored(lambda *message: self.told.append(("ignored", *message)))
        self.client.when.closed(lambda *end: self.told.append(("closed", *end)))
        self.client.when.error(self.errors.append)

    async def begin(self) -> asyncio.Task[Any]:
        """Connect, up to where the server must speak."""
        connecting = asyncio.create_task(self.client.connect("key"))
        await testing.settle()
        return connecting

    async def ready(self) -> None:
        connecting = await self.begin()
        self.server.say("~wse:welcome", None)
        await connecting
        self.told.clear()
        self.server.frames.clear()


@testing.virtual_time
async def test_it_says_hi_first() -> None:
    story = Story()
    connecting = await story.begin()
    assert story.server.frames == [["~wse:hi", {"identity": "key", "meta": {}}, None]]
    story.server.say("~wse:welcome", {"hey": 1}, None)
    assert await connecting == {"hey": 1}
    await story.client.close()


@pytest.mark.parametrize(
    ("frame", "welcome"),
    [
        (b'["~wse:welcome"]', None),
        (b'["~wse:welcome",0]', 0),
        (b'["~wse:welcome","",null]', ""),
        (b'["~wse:welcome",{"a":1},null,"a further member"]', {"a": 1}),
    ],
)
@testing.virtual_time
async def test_a_welcome_has_many_forms(frame: bytes, welcome: Any) -> None:
    story = Story()
    connecting = await story.begin()
    story.server.say_raw(frame)
    assert await connecting == welcome
    assert story.told == [("ready", welcome)]
    await story.client.close()


@testing.virtual_time
async def test_what_a_javascript_server_says_before_its_welcome_follows_ready() -> None:
    story = Story()
    heard: list[Any] = []
    story.client.channel.on("early", lambda payload: heard.append(("early", payload)))
    story.client.register("add", sum)
    story.client.when.ready(lambda _: heard.append("ready"))
    connecting = await story.begin()
    story.server.say("early", 1)
    story.server.say("add", [1, 2], "stamp")
    story.server.say("unhandled", 2)
    await testing.settle()
    assert heard == []
    story.server.say("~wse:welcome", "hello")
    story.server.say("early", 3)
    assert await connecting == "hello"
    await testing.settle()
    assert heard == ["ready", ("early", 1), ("early", 3)]
    assert story.told == [("ready", "hello"), ("ignored", "unhandled", 2)]
    assert story.server.frames[1:] == [["~wse:response", 3, "stamp"]]
    await story.client.close()


@pytest.mark.parametrize(
    "limits", [Limits(max_inbox_messages=10), Limits(max_inbox_bytes=10 * len('["early",1]'))]
)
@testing.virtual_time
async def test_what_is_kept_for_the_welcome_is_bounded(limits: Limits) -> None:
    story = Story(limits=limits)
    connecting = await story.begin()
    for _ in range(10):
        story.server.say_raw(b'["early",1]')
    await testing.settle()
    assert not connecting.done()
    story.server.say_raw(b'["early",1]')
    with pytest.raises(ConnectionFailed):
        await connecting
    assert isinstance(story.errors[0], ProtocolViolation)
    await testing.settle()
    assert story.server.ends == [(1000, "wse.protocol-error")]


@testing.virtual_time
async def test_what_was_kept_is_not_told_after_the_end() -> None:
    story = Story()
    heard: list[Any] = []

    @story.client.channel.on("early")
    def early(payload: Any) -> None:
        heard.append(payload)
        assert story.dialer.last is not None
        story.dialer.last.tear()

    connecting = await story.begin()
    story.server.say("early", 1)
    story.server.say("early", 2)
    story.server.say("~wse:welcome")
    await connecting
    assert heard == [1]
    assert story.told == [("ready", None), ("closed", 1006, "")]


@testing.virtual_time
async def test_replies_before_the_welcome_are_nobodys() -> None:
    story = Story()
    connecting = await story.begin()
    story.server.say("~wse:response", 1, "1")
    story.server.say("~wse:response-err", {"code": "x"}, "1")
    story.server.say("~wse:hi", {"identity": "backwards"})
    story.server.say("~wse:welcome")
    await connecting
    await testing.settle()
    assert story.told == [("ready", None)]
    assert story.errors == []
    await story.client.close()


@testing.virtual_time
async def test_being_refused() -> None:
    story = Story()
    connecting = await story.begin()
    story.server.transport.close(1000, "wse.not-authorized")
    with pytest.raises(NotAuthorized):
        await connecting
    assert story.told == [("closed", 1000, "wse.not-authorized")]


@pytest.mark.parametrize(
    ("code", "temporary"), [(1000, False), (1008, False), (1006, True), (1012, True), (1013, True)]
)
@testing.virtual_time
async def test_an_end_before_the_welcome(code: int, temporary: bool) -> None:
    story = Story()
    connecting = await story.begin()
    story.server.transport.close(code, "why")
    with pytest.raises(ConnectionFailed) as caught:
        await connecting
    assert caught.value.details == {"code": code, "reason": "why"}
    assert caught.value.temporary is temporary


@testing.virtual_time
async def test_not_authorized_after_the_welcome_is_an_end_like_others() -> None:
    story = Story(reconnect=True)
    await story.ready()
    story.server.transport.close(1000, "wse.not-authorized")
    await testing.settle()
    assert story.told == [("closed", 1000, "wse.not-authorized")]
    assert story.client.status is Status.OFFLINE


# -- challenges ------------------------------------------------------------------------------


@testing.virtual_time
async def test_quests_are_answered() -> None:
    story = Story()
    story.client.challenge(lambda quest: quest["a"] + quest["b"])
    connecting = await story.begin()
    story.server.say("~wse:challenge", {"a": 1, "b": 2}, None)
    await testing.settle()
    assert story.server.frames[1:] == [["~wse:challenge", 3, None]]
    story.server.say("~wse:challenge", {"a": 3, "b": 4}, None)
    await testing.settle()
    assert story.server.frames[2:] == [["~wse:challenge", 7, None]]
    story.server.say("~wse:welcome")
    await connecting
    await story.client.close()


@testing.virtual_time
async def test_one_quest_is_solved_at_a_time() -> None:
    story = Story()
    asked: list[Any] = []

    @story.client.challenge
    async def ponder(quest: Any) -> Any:
        asked.append(quest)
        await asyncio.sleep(1)
        return quest

    connecting = await story.begin()
    story.server.say("~wse:challenge", 1)
    story.server.say("~wse:challenge", 2)
    await testing.pass_time(5)
    assert asked == [1]
    assert story.server.frames[1:] == [["~wse:challenge", 1, None]]
    story.server.say("~wse:welcome")
    await connecting
    await story.client.close()


@testing.virtual_time
async def test_a_challenge_after_the_welcome_is_ignored() -> None:
    story = Story()
    asked: list[Any] = []
    story.client.challenge(asked.append)
    await story.ready()
    story.server.say("~wse:challenge", 1)
    story.server.say("~wse:welcome", 2)
    await testing.settle()
    assert asked == []
    assert story.told == [("ignored", "~wse:challenge", 1), ("ignored", "~wse:welcome", 2)]
    assert story.server.frames == []
    await story.client.close()


@testing.virtual_time
async def test_an_answer_that_cannot_be_sent_reaches_connect() -> None:
    story = Story()
    story.client.challenge(lambda _: object())
    connecting = await story.begin()
    story.server.say("~wse:challenge", 1)
    with pytest.raises(TypeError):
        await connecting
    await testing.settle()
    assert story.server.ends == [(1000, "wse.by-client")]


@pytest.mark.parametrize("ends", [False, True])
@testing.virtual_time
async def test_a_solver_that_raises_when_nobody_waits_for_it_ends_nothing(
    ends: bool, caplog: pytest.LogCaptureFixture
) -> None:
    story = Story()

    @story.client.challenge
    async def fails(_: Any) -> None:
        try:
            await asyncio.sleep(10)
        finally:
            raise Boom

    connecting = await story.begin()
    story.server.say("~wse:challenge", 1)
    await testing.settle()
    story.server.say("~wse:welcome", "hello")
    assert await connecting == "hello"
    if ends:
        story.server.transport.close(1000, "banned")
    await testing.pass_time(11)
    assert story.told == [("ready", "hello"), *[("closed", 1000, "banned")] * ends]
    assert story.client.status is (Status.OFFLINE if ends else Status.READY)
    [error] = story.errors
    assert isinstance(error.__cause__, Boom)
    assert error.details == {"event": "challenge", "id": error.details["id"]}
    [logged] = caplog.records
    assert error.details["id"] in logged.getMessage()
    assert len(story.server.frames) == 1
    await story.client.close()


@testing.virtual_time
async def test_the_answer_of_a_connection_that_ended_goes_nowhere() -> None:
    story = Story()

    @story.client.challenge
    async def stubborn(_: Any) -> str:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            return "too late"
        raise AssertionError

    connecting = await story.begin()
    story.server.say("~wse:challenge", 1)
    await testing.settle()
    story.server.transport.close(1013, "wse.authentication-timeout")
    with pytest.raises(ConnectionFailed) as caught:
        await connecting
    assert caught.value.details["code"] == 1013
    await testing.settle()
    assert len(story.server.frames) == 1


# -- calls, in both forms of reply -----------------------------------------------------------


@pytest.mark.parametrize("is_old", [True, False])
@testing.virtual_time
async def test_replies_of_old_and_new_servers(is_old: bool) -> None:
    story = Story()
    await story.ready()

    async def call(payload: Any, error: Any = None) -> Any:
        calling = asyncio.create_task(story.client.call("add", payload))
        await testing.settle()
        [[name, sent, stamp]] = story.server.frames
        story.server.frames.clear()
        assert [name, sent] == ["add", payload]
        assert stamp.startswith("~wse:call:add:")
        assert stamp.rpartition(":")[2].isalnum()
        if is_old:
            story.server.say(stamp, None if error else payload, error or {"success": True})
        elif error:
            story.server.say("~wse:response-err", error, stamp)
        else:
            story.server.say("~wse:response", payload, stamp)
        return await calling

    for value in (8, None, 0, "", False, {"a": [1]}):
        assert await call(value) == value
    with pytest.raises(CallNotRegistered):
        await call(1, {"code": "wse.server.rp.not-registered"})
    with pytest.raises(CallFailed) as failed:
        await call(1, {"code": "wse.server.rp.failed", "message": "boom!", "details": {}})
    assert failed.value.message == "boom!"
    with pytest.raises(WseError) as raised:
        await call(1, {"type": "wse-error", "code": "my-code", "details": {"fun": 1}})
    assert (raised.value.code, raised.value.details) == ("my-code", {"fun": 1})
    with pytest.raises(CallFailed):
        await call(1, {"code": 7})
    await story.client.close()


@testing.virtual_time
async def test_stamps_are_never_used_twice() -> None:
    story = Story()
    await story.ready()
    calling = [asyncio.create_task(story.client.call("add", number)) for number in range(20)]
    await testing.settle()
    stamps = [stamp for *_, stamp in story.server.frames]
    assert len(set(stamps)) == 20
    for number, stamp in reversed(list(enumerate(stamps))):
        story.server.say("~wse:response", number, stamp)
    assert [await call for call in calling] == list(range(20))
    await story.client.close()


@testing.virtual_time
async def test_unknown_and_late_replies_are_dropped_without_a_word() -> None:
    story = Story()
    await story.ready()
    calling = asyncio.create_task(story.client.call("add", 1))
    await testing.settle()
    [[_, _, stamp]] = story.server.frames
    story.server.say("~wse:response", "foreign", "no such stamp")
    story.server.say("~wse:response", "foreign", 7)
    story.server.say("~wse:call:add:999", "foreign", {"success": True})
    story.server.say("~wse:response", "mine", stamp)
    story.server.say("~wse:response", "again", stamp)
    assert await calling == "mine"
    await testing.settle()
    assert story.told == []
    assert story.errors == []
    assert len(story.server.frames) == 1
    await story.client.close()


@testing.virtual_time
async def test_the_server_calls_with_stamps_of_both_forms() -> None:
    story = Story()
    await story.ready()
    story.client.register("add", sum)

    @story.client.register("fail")
    async def fail(_: Any) -> None:
        raise WseError("my-code", {"fun": 1})

    story.server.say("add", [1, 2], "opaque")
    story.server.say("add", [3, 4], "~wse:call:add:x1")
    story.server.say("fail", None, "opaque")
    story.server.say("missing", None, "opaque")
    await testing.settle()
    assert sorted(story.server.frames, key=str) == sorted(
        [
            ["~wse:response", 3, "opaque"],
            ["~wse:call:add:x1", 7, {"success": True}],
            ["~wse:response-err", {"code": "my-code", "details": {"fun": 1}}, "opaque"],
            ["~wse:response-err", {"code": "wse.server.rp.not-registered"}, "opaque"],
        ],
        key=str,
    )
    await story.client.close()


# -- a server that says what it may not ------------------------------------------------------


@pytest.mark.parametrize(
    "frame", [b"not JSON", b"{}", b"[]", b"[7]", b"[" * 200_000, b"\xff\xfe", b'["x",1,{}]']
)
@pytest.mark.parametrize("is_ready", [True, False])
@testing.virtual_time
async def test_what_cannot_be_read_ends_the_connection(frame: bytes, is_ready: bool) -> None:
    story = Story(reconnect=True)
    if is_ready:
        await story.ready()
        story.server.say_raw(frame)
    else:
        connecting = await story.begin()
        story.server.say_raw(frame)
        with pytest.raises(ConnectionFailed):
            await connecting
    await testing.pass_time(100)
    assert story.server.ends == [(1000, "wse.protocol-error")]
    assert story.told == [("closed", 1000, "wse.protocol-error")]
    assert len(story.errors) == 1
    assert story.client.status is Status.OFFLINE


@testing.virtual_time
async def test_a_welcome_whose_payload_cannot_be_read_ends_the_connection() -> None:
    story = Story()
    connecting = await story.begin()
    story.server.say_raw(b'["~wse:welcome",' + b"9" * 5000 + b"]")
    with pytest.raises(ConnectionFailed):
        await connecting
    assert isinstance(story.errors[0], InvalidPayload)


@testing.virtual_time
async def test_a_quest_whose_payload_cannot_be_read_ends_the_connection() -> None:
    story = Story()
    solved: list[Any] = []
    story.client.challenge(solved.append)
    connecting = await story.begin()
    story.server.say_raw(b'["~wse:challenge",1e999]')
    with pytest.raises(ConnectionFailed, match=r"1000 wse\.protocol-error"):
        await connecting
    assert isinstance(story.errors[0], InvalidPayload)
    assert solved == []
    assert story.server.ends == [(1000, "wse.protocol-error")]


@testing.virtual_time
async def test_a_payload_that_cannot_be_read_ends_its_call_alone() -> None:
    story = Story()
    await story.ready()
    calling = asyncio.create_task(story.client.call("add", 1))
    await testing.settle()
    [[_, _, stamp]] = story.server.frames
    story.server.say_raw(
        b'["~wse:response",' + b"9" * 5000 + b"," + json.dumps(stamp).encode() + b"]"
    )
    with pytest.raises(InvalidPayload):
        await calling
    assert story.client.status is Status.READY
    await story.client.close()


@testing.virtual_time
async def test_a_message_above_the_limit_ends_the_connection() -> None:
    story = Story(limits=Limits(max_message_bytes=100), reconnect=True)
    connecting = await story.begin()
    story.server.say("~wse:welcome")
    await connecting
    story.server.say("big", "x" * 100)
    await testing.pass_time(100)
    assert story.told[1:] == [("closed", 1009, "wse.message-too-large")]
    assert story.client.status is Status.OFFLINE


@testing.virtual_time
async def test_secrets_stay_out_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "wse")
    story = Story()
    connecting = await story.begin()
    story.server.say_raw(b'{"secret": 1}')
    with pytest.raises(ConnectionFailed):
        await connecting
    assert "broke the protocol" in caplog.text
    assert "secret" not in caplog.text
    assert "key" not in caplog.text
