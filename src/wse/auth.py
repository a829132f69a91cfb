"""Saying who a connection is: the attempt, the decision, and a ready-made challenge."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .transports.base import Handshake

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    S = TypeVar("S", default=Any)
else:
    from typing import TypeVar

    S = TypeVar("S")
    """What the application keeps for a device, made by the server's `state=`."""

__all__ = ["Attempt", "Decision", "Identify", "cid_of", "hmac_challenge", "hmac_solver"]


def cid_of(value: object) -> str:
    """A user's address as the `str` that it is: 7 and "7" are one user; nobody is "".

    Raises:
        TypeError: neither a `str` nor an `int`.
    """
    if isinstance(value, str):
        return value
    if value is None or value is False:
        return ""
    if isinstance(value, int) and value is not True:
        return str(value)
    raise TypeError(f"a cid is a str or an int, not {type(value).__name__}")


@dataclass(frozen=True, slots=True, repr=False)
class Decision:
    """What `identify` decided; made by `Attempt.accept` and `Attempt.refuse`.

    Its `repr` does not tell who it is about.
    """

    cid: str
    """The user, or "" for nobody: refused."""
    welcome: Any = None
    """Payload of the welcome."""
    state: Any = None
    """The device's `conn.state`; None leaves it to the server's `state=`."""

    def __repr__(self) -> str:
        return f"<Decision to {'accept' if self.cid else 'refuse'}>"


@dataclass(frozen=True, eq=False, slots=True)
class Attempt:
    """One connection that wants in. Its `repr` and the log never show what it brought."""

    conn_id: str
    """The connection's id, which it keeps when accepted, unless it goes on with a session."""
    identity: Any = field(repr=False)
    """What the client gave `connect`, plain data: a token, a name and password, ..."""
    meta: Any = field(repr=False)
    """What it says about itself, plain data; {} when it says nothing."""
    device: str | None
    """Which of the user's devices this is, as it says; None when it does not."""
    handshake: Handshake = field(repr=False)
    _ask: Callable[[Any], Awaitable[Any]] = field(repr=False)

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the HTTP upgrade, case-insensitive."""
        return self.handshake.headers

    @property
    def query(self) -> Mapping[str, str]:
        """Parameters of the URL's query."""
        return self.handshake.query

    @property
    def cookies(self) -> Mapping[str, str]:
        """Cookies of the HTTP upgrade."""
        return self.handshake.cookies

    @property
    def path(self) -> str:
        """The URL's path."""
        return self.handshake.path

    @property
    def context(self) -> Any:
        """What a web framework has of the connection; see `WseConnection.context`."""
        return self.handshake.context

    @property
    def remote_addr(self) -> str | None:
        """The peer's IP address; None on a Unix socket."""
        return self.handshake.remote_addr

    def accept(self, cid: str | int | None, welcome: Any = None, *, state: Any = None) -> Decision:
        """The connection belongs to this user. None, "" and False refuse; 0 is a user.

        Args:
            cid: The user's address from now on.
            welcome: What the client's `connect` returns.
            state: The device's `conn.state`, such as the user's row that was just loaded; None
                leaves it to the server's `state=`. A device that goes on with its session keeps
                the one it had.

        Raises:
            TypeError: a cid that is neither a `str` nor an `int`.
        """
        return Decision(cid_of(cid), welcome, state)

    def refuse(self) -> Decision:
        """Close it with `wse.not-authorized`. The client stays away."""
        return Decision("")

    async def challenge(self, quest: Any) -> Any:
        """Ask the client something, and wait for its answer.

        Ends with the attempt's cancellation when the client goes away, takes too long, or answers
        what cannot be read.

        Args:
            quest: Given to the client's solver.

        Returns:
            The answer, plain data. Nothing else that the client sends meanwhile is heard.

        Raises:
            ChallengeRoundsExceeded: asked more often than `Limits.max_challenge_rounds`.
        """
        return await self._ask(quest)


Identify = Callable[[Attempt], Awaitable[Decision | None] | Decision | None]
"""Says who a connection is. None, and any exception, refuses."""


def _hmac(key: str | bytes, nonce: str) -> str:
    secret = key.encode() if isinstance(key, str) else key
    return hmac.digest(secret, nonce.encode(), "sha256").hex()


async def hmac_challenge(attempt: Attempt, key: str | bytes) -> bool:
    """Whether the client holds the same key, which never travels (HMAC, RFC 2104).

    The quest is `{"nonce": ...}` with 256 fresh random bits as hexadecimal text, good for this one
    question; the answer is HMAC-SHA-256 of that text under the key, as hexadecimal text.
    It is compared in constant time.
    """
    nonce = secrets.token_hex(32)
    answer = await attempt.challenge({"nonce": nonce})
    return isinstance(answer, str) and hmac.compare_digest(
        answer.encode(errors="replace"), _hmac(key, nonce).encode()
    )


def hmac_solver(key: str | bytes) -> Callable[[Any], str]:
    """The other half of `hmac_challenge`, for `client.challenge`."""

    def solve(quest: Any) -> str:
        return _hmac(key, quest["nonce"])

    return solve
