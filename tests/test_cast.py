"""The application of the demo, and who may visit it."""

from __future__ import annotations

import asyncio
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from wse import NotAuthorized, WseError, testing
from wse.cli.cast import House
from wse.cli.story import Story


def make_house(*, is_open: bool = True) -> House:
    story = Story(Console(file=StringIO()), {})
    house = House(story)
    if is_open:
        house.doors.set()
    return house


@testing.virtual_time
async def test_what_goes_wrong_at_the_server_is_told() -> None:
    out = StringIO()
    house = House(Story(Console(file=out), {}))
    house.doors.set()
    async with testing.Network(house.server) as network:
        carol = await network.connect("carol", {"device": "phone"})
        carol.send("say", 7)
        await testing.settle()
    assert "server       • carol/phone   error wse.invalid-payload" in out.getvalue()
    house.failed(WseError("my-code"), None)
    assert "server       • stranger      error my-code" in out.getvalue()


@testing.virtual_time
async def test_visitors_wait_until_the_story_is_told() -> None:
    house = make_house(is_open=False)
    async with testing.Network(house.server) as network:
        visitor = network.device()
        connecting = asyncio.create_task(visitor.connect("carol"))
        await testing.settle()
        assert not connecting.done()
        house.doors.set()
        assert await connecting == "Hello, carol!"


@testing.virtual_time
async def test_visitors_are_told_who_joins_and_leaves_and_what_is_said() -> None:
    async with testing.Network(make_house().server) as network:
        carol = await network.connect("carol")
        dave = await network.connect("dave")
        assert await carol.next("joined") == {"who": "dave"}
        dave.send("say", "hi")
        assert await carol.next("said") == await dave.next("said") == {"who": "dave", "text": "hi"}
        await dave.close()
        assert await carol.next("left") == {"who": "dave"}
        assert not dave.received


@pytest.mark.parametrize(
    "identity",
    [
        None,
        "",
        "alice",
        "Alice",
        "server",
        "two words",
        "\x1b[2J",
        "x" * 13,
        7,
        {"name": "alice", "token": "guess"},
        {"name": "alice"},
        {"name": "carol", "token": ""},
    ],
)
def test_visitors_cannot_take_a_name_that_is_not_theirs(identity: Any) -> None:
    @testing.virtual_time
    async def story() -> None:
        async with testing.Network(make_house().server) as network:
            with pytest.raises(NotAuthorized):
                await network.connect(identity)

    story()
