"""Many stories of one scene, in a process of their own."""

from __future__ import annotations

import faulthandler
import itertools
import traceback
from collections.abc import Iterator
from typing import Any, NamedTuple

from .frames import Frames
from .memory import MemoryClient, MemoryServer
from .scene import Scene, Totals, play
from .sockets import SocketClient, SocketServer

__all__ = ["SCENES", "Batch", "batches"]


class Size(NamedTuple):
    """A scene, and the stories of a batch: ten thousand inputs or more, in a few seconds."""

    kind: type[Scene[Any]]
    stories: int


SCENES = {
    size.kind.name: size
    for size in [
        Size(MemoryServer, 1250),
        Size(MemoryClient, 1250),
        Size(SocketServer, 1000),
        Size(SocketClient, 1000),
        Size(Frames, 1000),
    ]
}

PATIENCE = 900.0
"""Seconds after which a batch hangs; one takes some ten."""


class Batch(NamedTuple):
    """So many stories of one scene, chosen by a seed."""

    scene: str
    seed: int
    stories: int

    def __str__(self) -> str:
        return f"SCENE={self.scene} SEED={self.seed} STORIES={self.stories}"

    def play(self) -> Totals | str:
        """What was played, or why it failed."""
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        try:
            return play(SCENES[self.scene].kind, self.stories, self.seed)
        except Exception:
            return traceback.format_exc()
        finally:
            faulthandler.cancel_dump_traceback_later()


def batches(seed: int) -> Iterator[Batch]:
    """Each scene in turn, without end."""
    names = itertools.cycle(SCENES)
    for number in itertools.count(seed):
        name = next(names)
        yield Batch(name, number, SCENES[name].stories)
