"""One stage for many stories, and what must be true after each."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import sys
import time
import tracemalloc
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from carriers import FakeStream
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.database import InMemoryExampleDatabase
from hypothesis.strategies import SearchStrategy

import wse
from wse import Attempt, Reason, WseConnection, testing
from wse.identity import WseIdentity
from wse.link import Link
from wse.transports.lane import Lane
from wse.transports.memory import MemoryTransport
from wse.transports.stream import StreamTransport

from .terms import BROKEN, INVALID, TORN, End

__all__ = ["Scene", "Totals", "growth", "play", "until"]

S = TypeVar("S")

_MOST_BYTES = 16 * 1024
"""Random bytes from which a story is made; few take a tenth of them."""
_NAMED = {TORN, (1001, ""), BROKEN, INVALID, *((one.close_code, str(one)) for one in Reason)}
_KEPT = (
    *(Attempt, WseConnection, WseIdentity, Link, Lane, MemoryTransport, StreamTransport),
    asyncio.Task,
)


class Loop(testing.VirtualClockLoop):
    """A virtual clock, and sockets that are none."""

    def __init__(self) -> None:
        super().__init__()
        self.dialled: list[FakeStream] = []
        self.half_closes = True

    async def create_connection(  # type: ignore[override]
        self, factory: Any, *_: Any, **__: Any
    ) -> Any:
        stream = FakeStream(half_closes=self.half_closes)
        protocol = factory()
        stream.set_protocol(protocol)
        protocol.connection_made(stream)
        self.dialled.append(stream)
        return stream, protocol

    @property
    def timers(self) -> list[asyncio.TimerHandle]:
        """Those that are to go off."""
        scheduled: list[asyncio.TimerHandle] = self._scheduled  # type: ignore[attr-defined]
        return [timer for timer in scheduled if not timer.cancelled()]


async def until(condition: Callable[[], bool]) -> None:
    """Let time pass until this is so, an hour at most."""
    for _ in range(3600):
        await testing.settle()
        if condition():
            return
        await testing.pass_time(1.0)
    raise AssertionError("it does not end")


class _Watch(logging.Handler):
    """Notes what must never happen, whoever notices it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.troubles: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            if record.levelno >= logging.ERROR:
                self.troubles.append(logging.Formatter().format(record))
            elif not text.isprintable():
                self.troubles.append(f"a peer writes into the log: {text!r}")
        except Exception as error:
            self.troubles.append(f"cannot log {record.msg!r}: {error!r}")

    def loop(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.troubles.append(f"{context['message']}: {context.get('exception')!r}")

    def unraisable(self, what: Any) -> None:
        self.troubles.append(f"{what.err_msg}: {what.exc_value!r}")

    @contextmanager
    def __call__(self) -> Iterator[None]:
        ours = logging.getLogger("wse")
        level, propagates, hook = ours.level, ours.propagate, sys.unraisablehook
        ours.setLevel(logging.INFO)
        ours.propagate = False  # to handlers that would keep what the records hold
        ours.addHandler(self)
        sys.unraisablehook = self.unraisable
        try:
            yield
        finally:
            sys.unraisablehook = hook
            ours.removeHandler(self)
            ours.propagate = propagates
            ours.setLevel(level)


@dataclass
class Totals:
    """What was played."""

    inputs: int = 0
    connections: int = 0
    seconds: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)

    def add(self, other: Totals) -> None:
        self.inputs += other.inputs
        self.connections += other.connections
        self.seconds += other.seconds
        self.ends += other.ends

    def __str__(self) -> str:
        ends = ", ".join(f"{end} {count:,}" for end, count in self.ends.most_common())
        return (
            f"{self.inputs:,} inputs, {self.connections:,} connections, "
            f"{self.seconds:.1f} s; ended by: {ends}"
        )


class Scene(ABC, Generic[S]):
    """One entrance of the library, on which stories are played one after the other.

    All stories share a loop with a virtual clock, and what `open` makes. After each of them
    nothing of it may be left.
    """

    name: ClassVar[str]
    stories: SearchStrategy[S]

    def __init__(self) -> None:
        self.totals = Totals()
        self.watch = _Watch()
        self.runner = asyncio.Runner(loop_factory=Loop)
        self.loop.set_exception_handler(self.watch.loop)
        self.run(self.open())

    @property
    def loop(self) -> Loop:
        loop = self.runner.get_loop()
        assert isinstance(loop, Loop)
        return loop

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        with self.watch():
            self.runner.run(work)

    async def open(self) -> None:
        """Make what the stories share."""

    @abstractmethod
    async def act(self, story: S) -> None:
        """Play one story to its end, and count it in `totals`."""

    @abstractmethod
    def check_nothing_is_left(self) -> None:
        """Nothing of the story is known any more."""

    async def close(self) -> None:
        """Take down what `open` made."""

    async def whole(self, story: S) -> None:
        await self.act(story)
        await testing.settle()
        assert self.watch.troubles == [], "\n".join(self.watch.troubles)
        self.check_nothing_is_left()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert self.loop.timers == []

    def ended(self, end: End | str) -> None:
        """Count how a connection ended: with code and reason, or in words."""
        if isinstance(end, tuple) and end not in _NAMED:
            end = f"{end[0] if end[0] == 1000 else 'a code and reason'} of its own"
        self.totals.ends[end if isinstance(end, str) else f"{end[0]} {end[1]}".rstrip()] += 1


def _alive() -> Counter[str]:
    """What the library has made that is still referred to."""
    gc.collect()
    return Counter(type(one).__name__ for one in gc.get_objects() if type(one) in _KEPT)


class _Stage:
    """A scene, made anew after a story that failed: the next must not suffer from it."""

    def __init__(self, kind: type[Scene[Any]]) -> None:
        self._kind = kind
        self.totals = Totals()
        self.scene = kind()
        self._at_first = _alive()
        self._play = settings(
            database=InMemoryExampleDatabase(),
            deadline=None,
            phases=[Phase.reuse, Phase.shrink],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )(given(kind.stories)(self._whole))

    def play(self, stories: int, number: int) -> None:
        """Play so many stories, chosen by a seed; afterwards nothing of them is left.

        Raises:
            Exception: what the shortest story shows that shows it.
        """
        play_one = self._play.hypothesis.fuzz_one_input  # type: ignore[attr-defined]
        chance = random.Random(number)  # noqa: S311
        try:
            try:
                for _ in range(stories):
                    play_one(chance.randbytes(_MOST_BYTES))
            except Exception:
                self._play()  # the one that failed is in the database
                raise
            alive = _alive() - self._at_first
            assert not alive, f"still alive: {alive}"
        except Exception as error:
            again = f"make fuzz SCENE={self._kind.name} SEED={number} STORIES={stories}"
            error.add_note(f"To play this again: {again}")
            raise

    def close(self) -> None:
        self.totals.add(self.scene.totals)
        self.scene.run(self.scene.close())
        self.scene.runner.close()

    def _whole(self, story: Any) -> None:
        try:
            self.scene.run(self.scene.whole(story))
        except BaseException:
            self.totals.add(self.scene.totals)
            self.scene.runner.close()
            self.scene = self._kind()
            raise


def play(kind: type[Scene[Any]], stories: int, number: int) -> Totals:
    """Play so many stories of a scene, chosen by a seed; see `_Stage.play`."""
    started = time.perf_counter()
    stage = _Stage(kind)
    try:
        stage.play(stories, number)
    finally:
        stage.close()
    stage.totals.seconds = time.perf_counter() - started
    return stage.totals


def growth(kind: type[Scene[Any]], stories: int, number: int) -> int:
    """How many bytes more the library's own code holds after so many stories than before them.

    As many come before, since some things are made when they are first needed.
    """
    stage = _Stage(kind)
    tracemalloc.start()
    try:
        stage.play(stories, number)
        before = _held()
        stage.play(stories, number + 1)
        return _held() - before
    finally:
        tracemalloc.stop()
        stage.close()


def _held() -> int:
    gc.collect()
    ours = tracemalloc.Filter(inclusive=True, filename_pattern=f"{Path(wse.__file__).parent}/*")
    return sum(
        one.size for one in tracemalloc.take_snapshot().filter_traces([ours]).statistics("filename")
    )
