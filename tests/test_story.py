"""A story that is told: what is printed, and what fails it."""

from __future__ import annotations

import asyncio
from io import StringIO

import pytest
from rich.console import Console

from wse import testing
from wse.cli.story import ANYTHING, CHAPTER_PAUSE, Story, StoryFailed, noticed, sent


def make_story() -> Story:
    return Story(Console(file=StringIO()), {})


def test_every_person_has_a_colour_at_a_terminal() -> None:
    out = StringIO()
    console = Console(file=out, force_terminal=True, color_system="standard")
    story = Story(console, {"alice": "cyan", "bob": "magenta"})
    story.saw(sent("alice/phone", "bob/desk", "note", 1))
    assert out.getvalue() == (
        "  \x1b[36malice/phone \x1b[0m → \x1b[35mbob/desk    \x1b[0m  note 1\n"
    )


@testing.virtual_time
async def test_a_moment_that_does_not_come_fails_the_story() -> None:
    story = make_story()
    story.saw(sent("a", "b", "note", 1))
    with pytest.raises(StoryFailed) as failed:
        await story.see(sent("a", "b", "note", 2))
    assert str(failed.value) == (
        "this did not happen: a → b note 2; nobody expected this: a → b note 1"
    )


@testing.virtual_time
async def test_a_moment_counts_once() -> None:
    story = make_story()
    story.saw(noticed("a", "b", "joined"))
    with pytest.raises(StoryFailed) as failed:
        await story.see(noticed("a", "b", "joined"), noticed("a", "b", "joined"))
    assert str(failed.value) == "this did not happen: a • b joined"


@testing.virtual_time
async def test_a_moment_is_waited_for() -> None:
    story = make_story()
    seeing = asyncio.create_task(story.see(sent("a", "b", "answer", ANYTHING)))
    await testing.settle()
    assert not seeing.done()
    story.saw(sent("a", "b", "answer", "a nonce"))
    await seeing
    story.end()


@testing.virtual_time
async def test_a_moment_that_nobody_announced_fails_the_story_at_its_end() -> None:
    story = make_story()
    story.saw(noticed("a", "b", "left"))
    with pytest.raises(StoryFailed) as failed:
        story.end()
    assert str(failed.value) == "nobody expected this: a • b left"


@testing.virtual_time
async def test_what_comes_after_the_end_is_told_until_there_is_silence() -> None:
    out = StringIO()
    story = Story(Console(file=out), {})
    story.end()
    story.saw(noticed("a", "b", "joined"))
    story.silence()
    story.saw(noticed("a", "b", "left"))
    story.end()
    assert out.getvalue() == "  a            • b             joined\n"
    assert story.seen == 1


@pytest.mark.parametrize(("at_a_terminal", "seconds"), [(True, CHAPTER_PAUSE), (False, 0)])
def test_a_reader_at_a_terminal_gets_a_pause(at_a_terminal: bool, seconds: float) -> None:
    @testing.virtual_time
    async def chapter() -> float:
        story = Story(Console(file=StringIO(), force_terminal=at_a_terminal), {})
        clock = asyncio.get_running_loop().time
        began = clock()
        await story.chapter("One", "It begins.")
        return clock() - began

    assert chapter() == pytest.approx(seconds)
