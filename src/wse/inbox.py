"""What waits to be handled, and its bound."""

from __future__ import annotations

from collections import deque
from typing import Any, NamedTuple

from .handler import Handler
from .limits import Limits

__all__ = ["Inbox", "Job"]


class Job(NamedTuple):
    """One handler to start with one payload."""

    handler: Handler
    type: str
    payload: Any
    stamp: str | None
    """Names the answer, where one is wanted."""
    size: int
    """Bytes of the message it came in."""
    deadline: float | None
    """When its caller gives up, as the loop's time; None when it did not say."""


class Inbox:
    """Decides which handler of one connection may start now, and keeps the rest in order.

    Handlers start in the order in which their messages came. One must wait while `max_handlers`
    are at work, while an ordered one of its kind is at work, or, where tasks do not start at once
    (Python 3.11), while a plain one would overtake a task that has not taken its first step.
    """

    __slots__ = ("_at_work", "_limits", "_ordered", "_size", "_unstarted", "_waiting", "busy")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: deque[Job] = deque()
        self._size = 0
        self._at_work = 0
        self._unstarted = 0
        self._ordered: set[Handler] | None = None
        self.busy = 0
        """How many wait or are at work. While none does, every handler may start."""

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether no more should be read until some were handled."""
        return (
            len(self._waiting) >= self._limits.max_inbox_messages
            or self._size >= self._limits.max_inbox_bytes
        )

    @property
    def overfull(self) -> bool:
        """Whether it holds twice as much as makes it full."""
        return (
            len(self._waiting) >= 2 * self._limits.max_inbox_messages
            or self._size >= 2 * self._limits.max_inbox_bytes
        )

    @property
    def is_idle(self) -> bool:
        """Whether no asynchronous handler is at work."""
        return self._at_work == 0

    @property
    def unstarted(self) -> int:
        """How many tasks have not taken their first step."""
        return self._unstarted

    @property
    def has_room(self) -> bool:
        """Whether reading may go on, once it was paused: half of it is free."""
        return (
            len(self._waiting) <= self._limits.max_inbox_messages // 2
            and self._size <= self._limits.max_inbox_bytes // 2
        )

    def admits(self, handler: Handler) -> bool:
        """Whether this handler, whose message has just come, may start now; if not, `keep` it."""
        return not self._waiting and self._free(handler)

    def keep(self, job: Job) -> None:
        """Let a job wait for its turn."""
        self._waiting.append(job)
        self._size += job.size
        self.busy += 1

    def remove(self, stamp: str) -> bool:
        """Forget the call of this stamp; whether it waited."""
        for job in self._waiting:
            if job.stamp == stamp:
                self._waiting.remove(job)
                self._size -= job.size
                self.busy -= 1
                return True
        return False

    def next(self) -> Job | None:
        """The first job that was kept, if it may start now."""
        if not self._waiting or not self._free(self._waiting[0].handler):
            return None
        job = self._waiting.popleft()
        self._size -= job.size
        self.busy -= 1
        return job

    def begin(self, handler: Handler, *, started: bool) -> None:
        """An asynchronous handler is at work; `started` once it took its first step."""
        self._at_work += 1
        self.busy += 1
        self._unstarted += not started
        if handler.ordered:
            if self._ordered is None:
                self._ordered = set()
            self._ordered.add(handler)

    def first_step(self) -> None:
        """One that had not started has."""
        self._unstarted -= 1

    def end(self, handler: Handler) -> None:
        """One has ended."""
        self._at_work -= 1
        self.busy -= 1
        if handler.ordered and self._ordered is not None:
            self._ordered.discard(handler)

    def clear(self) -> None:
        """Forget what waits, and what has not started."""
        self._waiting.clear()
        self._size = 0
        self.busy = self._at_work
        self._unstarted = 0

    def _free(self, handler: Handler) -> bool:
        if self._at_work == 0:
            return True
        return (
            self._at_work < self._limits.max_handlers
            and (handler.is_async or not self._unstarted)
            and not (handler.ordered and self._ordered and handler in self._ordered)
        )
