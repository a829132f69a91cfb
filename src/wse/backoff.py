"""When to come back: exponential backoff with full jitter, and a cap."""

from __future__ import annotations

import random
from dataclasses import dataclass

__all__ = ["Backoff"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """How long a client waits before it tries again, in seconds.

    Each attempt waits a random time between 0 and `first * factor ** attempts`, at most `cap`
    ("full jitter": clients that were torn together do not come back together).

    Raises:
        ValueError: times that are not positive, or a factor below 1.
    """

    first: float = 0.5
    factor: float = 2.0
    cap: float = 30.0

    def __post_init__(self) -> None:
        if not (self.first > 0 and self.cap > 0 and self.factor >= 1):
            raise ValueError("Backoff wants first > 0, factor >= 1, cap > 0")

    def ceiling(self, attempts: int) -> float:
        """The longest wait after this many failed attempts."""
        return min(self.cap, self.first * self.factor ** min(attempts, 64))

    def delay(self, attempts: int) -> float:
        """A random wait after this many failed attempts."""
        return random.uniform(0.0, self.ceiling(attempts))  # noqa: S311 - jitter, no secret
