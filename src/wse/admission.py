"""Who may open a WebSocket at all: pages of known origins, addresses told by known proxies."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

__all__ = ["Addresses", "Origins", "Proxies", "is_origin"]

_origin = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#@*\s]+", re.IGNORECASE)
_localhost = re.compile(r"(.+\.)?localhost|127(\.\d{1,3}){3}|::1")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origins:
    """Which pages may connect (RFC 6455 section 10.2): those of the server's own host, and these.

    A browser sends cookies with every handshake, whatever page makes it; without this check any
    site could act as its visitors. Other clients send no Origin and are not concerned.

    Args:
        allowed: Origins such as `https://app.example.com`; `*` allows every page.

    Raises:
        ValueError: an origin that is none.
        TypeError: one text instead of a list.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        if isinstance(allowed, str):
            raise TypeError("origins takes a list of origins, not one text")
        self._allowed = frozenset(allowed)
        for origin in self._allowed - {"*"}:
            if not is_origin(origin):
                raise ValueError(f"no origin, such as https://app.example.com: {origin!r}")
        self._addresses = {_address(origin) for origin in self._allowed} - {None}
        self.localhost = False
        """Whether the pages of localhost may connect too, whatever their port."""

    def allow(self, origin: str | None, host: str | None) -> bool:
        """Whether a handshake with these headers may go on.

        Args:
            origin: The Origin header; None where there is none.
            host: The Host header.
        """
        if origin is None or "*" in self._allowed or origin in self._allowed:
            return True
        address = _address(origin)
        if address is None:
            return False
        scheme, name, port = address
        if address in self._addresses or (self.localhost and _localhost.fullmatch(name)):
            return True
        own = _address(f"{scheme}://{host or ''}")
        return own is not None and own[1:] == (name, port)


def is_origin(text: str) -> bool:
    """Whether an Origin header may say this (RFC 6454 section 6.1)."""
    web = text.startswith(("http:", "https:"))
    return text == "null" or (
        _origin.fullmatch(text) is not None and not (web and _address(text) is None)
    )


def _address(origin: str) -> tuple[str, str, int] | None:
    """Scheme, host and port of an origin, with the scheme's port where it names none."""
    try:
        parts = urlsplit(origin)
        port = parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None
    if not parts.hostname or port is None or parts.netloc.count("@"):
        return None
    if parts.path or parts.query or parts.fragment:
        return None
    return parts.scheme, parts.hostname, port


@dataclass(frozen=True, slots=True)
class Proxies:
    """Whose word about the peer's address is taken.

    A header counts only when the connection comes from a listed network, and is read from the
    right: each trusted proxy added one address, what stands further left anybody may have written.
    Name the one header that your proxies set: the other one they pass on as the peer wrote it.

    Args:
        networks: Addresses and networks of the proxies, such as `10.0.0.0/8`; `unix` for one that
            connects through a Unix socket.
        header: `x-forwarded-for`, or `forwarded` (RFC 7239).

    Raises:
        ValueError: no network, or another header.
    """

    networks: tuple[IPv4Network | IPv6Network, ...]
    unix: bool
    header: str

    def __init__(self, *networks: str, header: str = "x-forwarded-for") -> None:
        if header.lower() not in ("x-forwarded-for", "forwarded"):
            raise ValueError("the header is x-forwarded-for or forwarded")
        if not networks:
            raise ValueError('name the networks of the proxies: Proxies("10.0.0.0/8")')
        listed = tuple(ip_network(one) for one in networks if one != "unix")
        object.__setattr__(self, "networks", listed)
        object.__setattr__(self, "unix", "unix" in networks)
        object.__setattr__(self, "header", header.lower())

    def peer(self, address: str | None, headers: Mapping[str, str]) -> str | None:
        """The peer's address: the last one that is no trusted proxy's.

        Args:
            address: Where the connection comes from.
            headers: Of the handshake.
        """
        told = self._told(headers.get(self.header, ""))
        while told and self._trusts(address):
            last = _parsed(told.pop())
            if last is None:
                break
            address = str(last)
        return address

    def _trusts(self, address: str | None) -> bool:
        if address is None:
            return self.unix
        parsed = _parsed(address)
        return parsed is not None and any(parsed in network for network in self.networks)

    def _told(self, value: str) -> list[str]:
        entries = [entry.strip() for entry in value.split(",") if entry.strip()]
        if self.header == "x-forwarded-for":
            return entries
        return [_forwarded_for(entry) for entry in entries]


def _forwarded_for(entry: str) -> str:
    """The `for` of one element of Forwarded (RFC 7239 section 4)."""
    for pair in entry.split(";"):
        name, _, value = pair.strip().partition("=")
        if name.lower() == "for":
            return value.strip('"')
    return ""


def _parsed(text: str) -> IPv4Address | IPv6Address | None:
    """An address, in brackets or with a port or not."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


class Addresses:
    """How many connections each IP address has.

    Args:
        most: How many it may have; None counts nothing.
    """

    def __init__(self, most: int | None) -> None:
        self._most = most
        self._counts: Counter[str] = Counter()

    def __len__(self) -> int:
        """How many addresses have a connection."""
        return len(self._counts)

    @property
    def counts(self) -> bool:
        """Whether there is a bound."""
        return self._most is not None

    def full(self, address: str | None) -> bool:
        """Whether this one has as many as it may."""
        return (
            self._most is not None
            and address is not None
            and self._counts[_network(address)] >= self._most
        )

    def add(self, address: str | None) -> None:
        """One more; an address that is None, a Unix socket's, is not counted."""
        if self._most is not None and address is not None:
            self._counts[_network(address)] += 1

    def remove(self, address: str | None) -> None:
        """One less."""
        if self._most is not None and address is not None:
            network = _network(address)
            self._counts[network] -= 1
            if not self._counts[network]:
                del self._counts[network]


def _network(address: str) -> str:
    """What counts as one: of IPv6 the /64 network, which one customer has whole."""
    parsed = _parsed(address)
    if isinstance(parsed, IPv6Address):
        return str(IPv6Network((parsed.packed, 64), strict=False))
    return str(parsed or address)
