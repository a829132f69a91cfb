"""How connections end (docs/errors.md), and limits that are small enough to be reached."""

from __future__ import annotations

from wse import Limits

__all__ = [
    "BROKEN",
    "BURST",
    "DROPPED",
    "GIVEN_UP",
    "INVALID",
    "LIMITS",
    "PROTOCOL_ERROR",
    "REFUSED",
    "SILENT",
    "TOO_LARGE",
    "TOO_LATE",
    "TOO_MANY",
    "TOO_SLOW",
    "TORN",
    "End",
]

LIMITS = Limits(
    max_stranger_message_bytes=700,
    max_message_bytes=2500,
    max_challenge_rounds=2,
    max_unwritten_bytes=4000,
    max_unwritten_messages=20,
    max_handlers=2,
    max_inbox_messages=3,
    max_inbox_bytes=2000,
    max_fragments=8,
    max_upgrade_bytes=8000,
    max_turn_bytes=2000,
    messages_per_second=4.0,
    rate_burst_seconds=5.0,
)
BURST = 20
"""Messages that may come at once."""

End = tuple[int, str]
"""Code and reason."""

PROTOCOL_ERROR: End = (1000, "wse.protocol-error")
REFUSED: End = (1000, "wse.not-authorized")
DROPPED: End = (1000, "wse.by-server")
GIVEN_UP: End = (1000, "wse.by-client")
TOO_LATE: End = (1013, "wse.authentication-timeout")
TOO_SLOW: End = (1013, "wse.slow-consumer")
TOO_MANY: End = (1013, "wse.rate-limit")
TOO_LARGE: End = (1009, "wse.message-too-large")
TORN: End = (1006, "")
SILENT: End = (1006, "wse.heartbeat-lost")
BROKEN: End = (1002, "wse.protocol-error")
INVALID: End = (1007, "wse.protocol-error")
