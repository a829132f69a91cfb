"""How much a peer may say: token buckets, of connections and of users."""

from __future__ import annotations

from collections import OrderedDict

from .limits import Limits

__all__ = ["Bucket", "UserRates"]


class Bucket:
    """Tokens that come back at a steady rate; each message takes one. Times are a loop's.

    Args:
        rate: Tokens for each second.
        seconds: How many seconds' worth it holds; it begins full, and holds one at least.
        now: The time.
    """

    __slots__ = ("_at", "_most", "_rate", "_tokens")

    def __init__(self, rate: float, seconds: float, now: float) -> None:
        self._rate = rate
        self._most = max(1.0, rate * seconds)
        self._tokens = self._most
        self._at = now

    @property
    def seconds_to_fill(self) -> float:
        """How long an empty one takes to be full."""
        return self._most / self._rate

    def take(self, now: float) -> bool:
        """Take a token; false when there is none."""
        self._tokens = min(self._most, self._tokens + (now - self._at) * self._rate)
        self._at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class UserRates:
    """A bucket for each user, shared by the devices.

    It outlasts the last device by the time that it takes to be full again: to leave and to come
    back makes nobody's full.
    """

    def __init__(self, limits: Limits) -> None:
        self._rate = limits.user_messages_per_second
        self._burst = limits.rate_burst_seconds
        self._here: dict[str, Bucket] = {}
        self._gone: OrderedDict[str, tuple[float, Bucket]] = OrderedDict()

    def __len__(self) -> int:
        """How many buckets are kept."""
        return len(self._here) + len(self._gone)

    def join(self, cid: str, now: float) -> Bucket | None:
        """The bucket of a user who is here; None where there is no rate."""
        if self._rate is None:
            return None
        self._forget(now)
        bucket = self._here.get(cid)
        if bucket is None:
            _, bucket = self._gone.pop(cid, (now, None))
            bucket = self._here[cid] = bucket or Bucket(self._rate, self._burst, now)
        return bucket

    def leave(self, cid: str, now: float) -> None:
        """The user has left."""
        bucket = self._here.pop(cid, None)
        if bucket is not None:
            self._forget(now)
            self._gone[cid] = (now + bucket.seconds_to_fill, bucket)

    def _forget(self, now: float) -> None:
        """Drop what is full by now: those who left first are first."""
        while self._gone:
            cid, (full, _) = next(iter(self._gone.items()))
            if now < full:
                break
            del self._gone[cid]
