"""What is told, and what has to happen: the machinery of `wse demo`.

What is printed is what an end saw: a message where it arrived, an event where it was raised. A
story waits for each moment that it announces, and fails for one that does not come, and for one
that nobody announced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from .terminal import printable, shown

__all__ = ["ANYTHING", "PATIENCE", "Moment", "Story", "StoryFailed", "noticed", "sent"]

PATIENCE = 5.0
"""Seconds that the story waits for a moment before it calls it missing."""
CHAPTER_PAUSE, STEP_PAUSE = 0.4, 0.1
"""Seconds, for readers at a terminal."""


class StoryFailed(Exception):
    """Something did not happen as it should."""


class _Anything:
    """Equal to every value: a nonce cannot be foretold."""

    def __eq__(self, _: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


ANYTHING = _Anything()
NOTHING = object()


@dataclass(frozen=True, slots=True)
class Moment:
    """Something that was seen: sent by one to another, or noticed by one about another."""

    who: str
    sign: str
    whom: str
    what: str
    value: Any

    def __str__(self) -> str:
        return f"{self.who} {self.sign} {self.whom} {self.text}"

    @property
    def text(self) -> str:
        if self.value is NOTHING or self.value is ANYTHING:
            return printable(self.what)
        return f"{printable(self.what)} {shown(self.value)}"


def sent(who: str, whom: str, what: str, value: Any = NOTHING) -> Moment:
    """A message arrived."""
    return Moment(who, "→", whom, what, value)


def noticed(who: str, about: str, what: str, value: Any = NOTHING) -> Moment:
    """An event was raised."""
    return Moment(who, "•", about, what, value)


class Story:
    """Prints moments as they are seen, and compares them with those that are awaited.

    Args:
        console: Where to.
        colours: Of people: a device, alice/phone, has that of its user.
    """

    def __init__(self, console: Console, colours: Mapping[str, str]) -> None:
        self.seen = 0
        self.chapters = 0
        self._console = console
        self._colours = colours
        self._live = True
        self._strict = True
        self._unexplained: list[Moment] = []
        self._changed = asyncio.Event()

    async def chapter(self, title: str, sentence: str) -> None:
        """Begin the next chapter."""
        self.chapters += 1
        self.heading(f"{self.chapters}  {title}", sentence)
        await self._pause(CHAPTER_PAUSE)

    def heading(self, title: str, sentence: str) -> None:
        """A new part begins."""
        self._console.print()
        self._console.rule(Text(title, "bold"), align="left", style="dim")
        self._console.print(Text(f"  {sentence}\n"))

    def saw(self, moment: Moment) -> None:
        """It has just happened."""
        if not self._live:
            return
        self.seen += 1
        line = Text.assemble(
            "  ",
            self._name(moment.who),
            f" {moment.sign} ",
            self._name(moment.whom),
            f"  {moment.text}",
        )
        self._console.print(line, no_wrap=True, overflow="ellipsis")
        if self._strict:
            self._unexplained.append(moment)
            self._changed.set()

    async def see(self, *expected: Moment) -> None:
        """Wait until all of these have happened, in whatever order.

        Raises:
            StoryFailed: one did not happen in time.
        """
        missing = list(expected)
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while self._explain(missing):
                    self._changed.clear()
                    await self._changed.wait()
        if missing:
            raise StoryFailed(_complaint(missing, self._unexplained))
        await self._pause(STEP_PAUSE)

    def end(self) -> None:
        """From now on anything may happen.

        Raises:
            StoryFailed: something happened that was never awaited.
        """
        if self._unexplained:
            raise StoryFailed(_complaint([], self._unexplained))
        self._strict = False

    def silence(self) -> None:
        """Print nothing any more."""
        self._live = False

    def _name(self, name: str) -> tuple[str, str]:
        return f"{name:12}", self._colours.get(name.partition("/")[0], "green")

    def _explain(self, missing: list[Moment]) -> bool:
        for moment in tuple(self._unexplained):
            if moment in missing:
                missing.remove(moment)
                self._unexplained.remove(moment)
        return bool(missing)

    async def _pause(self, seconds: float) -> None:
        if self._console.is_terminal:
            await asyncio.sleep(seconds)


def _complaint(missing: Sequence[Moment], unexplained: Sequence[Moment]) -> str:
    return "; ".join(
        [f"this did not happen: {moment}" for moment in missing]
        + [f"nobody expected this: {moment}" for moment in unexplained]
    )
