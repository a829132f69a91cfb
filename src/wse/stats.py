"""What a server has done and holds, in figures."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .codes import CloseCode, Reason

__all__ = ["Counts", "LoopLag", "Stats"]

_REASONS = frozenset(Reason) - {Reason.NO_REASON}
_OF_PEERS = frozenset({Reason.BY_CLIENT, Reason.JUMP, Reason.SERVER_CLOSING})
"""What a client says, and a web server that ends."""
_CODES = frozenset(CloseCode)


def _now(meaning: str) -> Any:
    return field(metadata={"kind": "gauge", "meaning": meaning})


def _since(meaning: str, label: str = "") -> Any:
    return field(metadata={"kind": "counter", "meaning": meaning, "label": label})


@dataclass(frozen=True, kw_only=True, slots=True)
class Stats:
    """Figures of one server: what is there now, and what was since it was made."""

    users: int = _now("Users with a device here.")
    devices: int = _now("Identified connections.")
    upgrading: int = _now("Sockets of its own listeners that have no request yet.")
    strangers: int = _now("Connections not identified yet, or sent away before and not gone yet.")
    handlers: int = _now("Asynchronous handlers and identifications at work.")
    waiting_messages: int = _now("Messages that wait for their handlers.")
    queued_bytes: int = _now("Bytes sent that no carrier has written yet.")
    suspended: int = _now("Devices that are away and may come back.")
    suspended_bytes: int = _now("What these cost, as Limits.max_suspended_bytes counts it.")
    kept_messages: int = _now("Messages sent that no device has acknowledged, where it can.")
    kept_bytes: int = _now("Their bytes, each counted for each device.")
    loop_lag_seconds: float = _now(
        "The longest that the loop was late in the last 10 to 20 seconds, while it listens."
    )
    connections: int = _since("Connections that were opened.")
    refused: Mapping[str, int] = _since(
        "Connections that were refused before the upgrade, by cause.", "cause"
    )
    closed: Mapping[str, int] = _since(
        "Connections that have ended, by reason of the library, else by close code; "
        "reasons of the application and of peers are `other`.",
        "reason",
    )
    resumed: int = _since("Times that a device came back to its session.")
    messages: int = _since("Messages that devices sent, but for calls and answers.")
    calls: int = _since("Calls that devices made.")
    handler_errors: int = _since("Functions of the application that raised.")

    def prometheus(self) -> str:
        """The figures as a page for Prometheus (text format 0.0.4); names begin with `wse_`."""
        return "".join(
            line for one in fields(self) for line in _exposed(one.name, one.metadata, self)
        )


def _exposed(name: str, metadata: Mapping[str, str], stats: Stats) -> list[str]:
    value = getattr(stats, name)
    full = f"wse_{name}_total" if metadata["kind"] == "counter" else f"wse_{name}"
    lines = [
        f"# HELP {full} {metadata['meaning']}\n",
        f"# TYPE {full} {metadata['kind']}\n",
    ]
    if isinstance(value, Mapping):
        label = metadata["label"]
        return lines + [f'{full}{{{label}="{key}"}} {count}\n' for key, count in value.items()]
    return [*lines, f"{full} {value}\n"]


class Counts:
    """What has happened at a server, counted on the way."""

    __slots__ = (
        "calls",
        "closed",
        "connections",
        "handler_errors",
        "messages",
        "refused",
        "resumed",
    )

    def __init__(self) -> None:
        self.connections = 0
        self.refused: Counter[str] = Counter()
        self.closed: Counter[str] = Counter()
        self.resumed = 0
        self.messages = 0
        self.calls = 0
        self.handler_errors = 0

    def close(self, code: int, reason: str, *, by_peer: bool = False) -> None:
        """A connection has ended. What a peer may make up is not told apart."""
        if reason in (_OF_PEERS if by_peer else _REASONS):
            self.closed[str(reason)] += 1
        elif not reason and code in _CODES:
            self.closed[str(int(code))] += 1
        else:
            self.closed["other"] += 1


class LoopLag:
    """How late a loop is: a timer that notes by how much it missed its time."""

    _INTERVAL = 0.25
    _WINDOW = 10.0

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._users = 0
        self._worst = self._worst_before = 0.0
        self._turn = 0.0

    @property
    def seconds(self) -> float:
        """The longest of this window and of the one before; 0 while nobody asks for it."""
        return max(self._worst, self._worst_before)

    def start(self) -> None:
        """Watch the loop that runs, until as many have stopped as have started."""
        self._users += 1
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._turn = loop.time() + self._WINDOW
            self._next(loop)

    def stop(self) -> None:
        self._users -= 1
        if self._users == 0 and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._worst = self._worst_before = 0.0

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_at(loop.time() + self._INTERVAL, self._note, loop)

    def _note(self, loop: asyncio.AbstractEventLoop) -> None:
        assert self._timer is not None
        now = loop.time()
        self._worst = max(self._worst, now - self._timer.when())
        if now >= self._turn:
            self._turn = now + self._WINDOW
            self._worst, self._worst_before = 0.0, self._worst
        self._next(loop)
