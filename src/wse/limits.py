"""Every bound of the library, in one frozen object."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

__all__ = ["Limits"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a peer may cost. Sizes are in bytes, times in seconds.

    All are on by default but those that are None.

    Raises:
        ValueError: a bound that is not positive, or not finite.
        TypeError: one that is no number, or no whole one where it counts something.
    """

    upgrade_timeout: float = 5.0
    """From the TCP connection to the end of the HTTP upgrade; then the socket is closed."""
    authentication_timeout: float = 10.0
    """From the TCP connection to the welcome; then closed with `wse.authentication-timeout`, and a
    second later the socket is gone. So is by then that of a stranger who was sent away before."""
    max_upgrading: int = 4096
    """Sockets of one listener whose HTTP request is not complete; more are closed at once."""
    max_strangers: int = 1000
    """Upgraded connections that are not identified yet, or were sent away before and are not gone
    yet; more get HTTP 503 with Retry-After."""
    max_connections_per_address: int | None = None
    """Connections from one IP address, for IPv6 from one /64 network, until their sockets are gone;
    more get HTTP 429 with Retry-After. Many people may share an address: off unless asked for."""
    max_upgrade_bytes: int = 16 * 1024
    """The HTTP upgrade request; a longer one gets status 431."""
    max_stranger_message_bytes: int = 16 * 1024
    """One message before the welcome; a larger one closes with 1009."""
    max_message_bytes: int = 1024 * 1024
    """One message after the welcome. Larger ones that arrive close with 1009; sending one raises
    `MessageTooLarge`."""
    max_fragments: int = 128
    """Frames that one message may come in (RFC 6455 section 5.4); more close with 1009."""
    max_turn_bytes: int = 16 * 1024
    """Bytes of frames that are taken in from one peer in one turn of the loop; then the others have
    theirs. Each frame counts 64 more, a fragment or a compressed one 512, and what was compressed
    counts inflated: their work is not in their bytes. A message is never cut."""
    max_challenge_rounds: int = 8
    """Challenges that `identify` may ask in one attempt."""
    max_unwritten_bytes: int = 1024 * 1024
    """What may wait to leave after an attempt to write; more closes with `wse.slow-consumer`."""
    max_unwritten_messages: int = 1024
    """As many messages, whatever their size."""
    max_handlers: int = 64
    """Asynchronous handlers of one connection that may be at work at once."""
    max_inbox_messages: int = 1024
    """Messages of one connection that may wait for their handlers; then reading pauses."""
    max_inbox_bytes: int = 1024 * 1024
    """The same in bytes."""
    max_event_handlers: int = 1000
    """Asynchronous handlers of `ignored` and `error`, which any message may cause, at work at once
    in the whole server, and `max_handlers` for one connection; further ones are left out."""
    messages_per_second: float | None = None
    """Messages from one connection; more close with `wse.rate-limit`. Answers to calls are free."""
    user_messages_per_second: float | None = None
    """The same from all connections of one user together."""
    rate_burst_seconds: float = 10.0
    """How many seconds' worth of messages may come at once after silence, where a rate is set."""
    heartbeat_interval: float = 25.0
    """Silence after which a peer is asked for a sign of life."""
    heartbeat_timeout: float = 10.0
    """Silence after that; then the connection has ended with 1006 `wse.heartbeat-lost`."""
    session_window: float | None = 120.0
    """For how long a session outlasts its connection; None ends it with the connection."""
    reload_window: float = 5.0
    """The same after close code 1001: a page has gone, which may only be loading again."""
    max_kept_messages: int = 1024
    """Messages of one session that are kept until its peer has acknowledged them. The oldest of
    those that were sent give way; what is sent to a device that is away must fit."""
    max_kept_bytes: int = 1024 * 1024
    """The same in bytes."""
    max_suspended_bytes: int = 256 * 1024 * 1024
    """What is kept for all devices that are away, each with 4 KiB more; those that have been away
    the longest give way."""
    close_timeout: float = 5.0
    """From a close frame to the end of the TCP connection; then it is aborted."""

    def __post_init__(self) -> None:
        for field in fields(self):
            bound = getattr(self, field.name)
            annotation = str(field.type)
            if bound is None and annotation.endswith("None"):
                continue
            whole = annotation.startswith("int")
            if isinstance(bound, bool) or not isinstance(bound, int if whole else int | float):
                kind = "a whole number" if whole else "a number"
                raise TypeError(f"Limits.{field.name} must be {kind}")
            if not 0 < bound < math.inf:
                raise ValueError(f"Limits.{field.name} must be positive and finite")
