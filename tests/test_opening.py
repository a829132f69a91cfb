"""The express lane of the opening handshake, beside the reference that decides about the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from wse.transports.base import merged
from wse.transports.lane import let_go, library_logger
from wse.transports.opening import accepted, read_request

KEY = "dGhlIHNhbXBsZSBub25jZQ=="

CLIENTS = {
    "Chrome": """GET /ws?room=1 HTTP/1.1
Host: localhost:4200
Connection: Upgrade
Pragma: no-cache
Cache-Control: no-cache
User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/143.0.0.0
Upgrade: websocket
Origin: http://localhost:4200
Sec-WebSocket-Version: 13
Accept-Encoding: gzip, deflate, br, zstd
Accept-Language: en-GB,en;q=0.9
Cookie: session=abc; theme=dark
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits
Sec-WebSocket-Protocol: wse-default-json
""",
    "Firefox": """GET /ws HTTP/1.1
Host: chat.example
User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0
Accept: */*
Accept-Language: en-US,en;q=0.5
Accept-Encoding: gzip, deflate, br, zstd
Sec-WebSocket-Version: 13
Origin: https://chat.example
Sec-WebSocket-Protocol: wse-default-json
Sec-WebSocket-Extensions: permessage-deflate
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
Connection: keep-alive, Upgrade
Sec-Fetch-Dest: empty
Pragma: no-cache
Upgrade: websocket
""",
    "Safari": """GET /ws HTTP/1.1
Host: chat.example
Origin: https://chat.example
Upgrade: websocket
Connection: Upgrade
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
Sec-WebSocket-Version: 13
Sec-WebSocket-Protocol: wse-default-json
Sec-WebSocket-Extensions: permessage-deflate
User-Agent: Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)
""",
    "ws": """GET / HTTP/1.1
Sec-WebSocket-Version: 13
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
Connection: Upgrade
Upgrade: websocket
Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits
Sec-WebSocket-Protocol: wse-default-json,other
Host: 127.0.0.1:4200
""",
    "websockets": """GET / HTTP/1.1
Host: 127.0.0.1:4200
Upgrade: websocket
Connection: Upgrade
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
Sec-WebSocket-Version: 13
Sec-WebSocket-Protocol: wse-default-json, other
User-Agent: Python/3.11 websockets/17.4
""",
    "aiohttp": """GET /ws HTTP/1.1
Host: 127.0.0.1:4200
Upgrade: websocket
Connection: Upgrade
Sec-WebSocket-Version: 13
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
Accept: */*
Accept-Encoding: gzip, deflate
User-Agent: Python/3.11 aiohttp/3.14.5
""",
}


def wire(text: str) -> bytes:
    return f"{text}\n".replace("\n", "\r\n").encode("latin-1")


class Reference(ServerProtocol):
    """What decides about every other request; it selects the last subprotocol of those offered."""

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol | None:
        return subprotocols[-1] if subprotocols else None


def compare(head: bytes, *, compression: bool) -> bool:
    """Whether the express lane took it; if so, the reference says the same of it."""
    request = read_request(head, compression=compression)
    if request is None:
        return False
    reference = Reference(
        extensions=[ServerPerMessageDeflateFactory()] if compression else None,
        logger=library_logger,
    )
    try:
        reference.receive_data(head)
        (read,) = reference.events_received()
        response = reference.accept(cast(Request, read))
        assert (response.status_code, reference.extensions) == (101, [])
        read = cast(Request, read)
        assert request.target == read.path
        assert len(read.headers.get_all("Host")) == 1
        assert list(request.fields.items()) == list(merged(read.headers.raw_items()).items())
        offered = request.subprotocols
        assert (offered[-1] if offered else None) == reference.subprotocol
        del response.headers["Date"]
        assert accepted(request.key, reference.subprotocol) == response.serialize()
    finally:
        let_go(reference)
    return True


@pytest.mark.parametrize("client", CLIENTS)
def test_what_real_clients_send_takes_the_express_lane(client: str) -> None:
    assert compare(wire(CLIENTS[client]), compression=False)


@pytest.mark.parametrize("client", CLIENTS)
def test_extensions_are_the_references_where_some_are_agreed_to(client: str) -> None:
    head = wire(CLIENTS[client])
    assert compare(head, compression=True) is (b"Sec-WebSocket-Extensions" not in head)


NAMES = (
    "Host",
    "Upgrade",
    "Connection",
    "Sec-WebSocket-Key",
    "Sec-WebSocket-Version",
    "Sec-WebSocket-Protocol",
    "Sec-WebSocket-Extensions",
    "Content-Length",
    "Transfer-Encoding",
    "Cookie",
    "Origin",
    "X",
)
VALUES = (
    "",
    " ",
    "websocket",
    "WebSocket",
    "websocket, h2c",
    "Upgrade",
    "upgrade",
    "keep-alive, Upgrade",
    "keep-alive,Upgrade",
    "Upgrade,",
    "close",
    "13",
    "8",
    "013",
    KEY,
    KEY[:-1],
    f"{KEY}=",
    "AAAAAAAAAAAAAAAAAAAAAB==",
    "AAAAAAAAAAAAAAAAAAAAAAA=",
    "wse-default-json",
    "a,b",
    "a, b",
    "a , b",
    "a,,b",
    ", a",
    "a,",
    "a b",
    "permessage-deflate",
    "0",
    "5",
    "chunked",
    "a\tb",
    "\ta",
    "é",
    "a\x00b",
    "a\x7fb",
    "x" * 8170,
)
ODD_LINES = ("", "no colon", " folded: x", ": no name", "Name : space", "Nä: x", "X:y", "X:\t y \t")
REQUEST_LINES = (
    "GET / HTTP/1.1",
    "GET /ws?a=b&c HTTP/1.1",
    "GET * HTTP/1.1",
    "GET  / HTTP/1.1",
    "GET / HTTP/1.0",
    "GET / HTTP/1.1 ",
    "GET /a b HTTP/1.1",
    "GET /é HTTP/1.1",
    "get / HTTP/1.1",
    "HEAD / HTTP/1.1",
    "POST / HTTP/1.1",
    "GET /",
)
USUAL = CLIENTS["ws"].splitlines()[1:]


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A request that is nearly, or wholly, an ordinary one."""
    lines = list(USUAL)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(lines)))
        name = draw(st.sampled_from(NAMES))
        line = f"{name}:{draw(st.sampled_from(['', ' ', '  ']))}{draw(st.sampled_from(VALUES))}"
        match draw(st.integers(0, 5)):
            case 0:
                del lines[place : place + 1]
            case 1:
                lines.insert(place, line)
            case 2:
                lines[:] = [one for one in lines if not one.lower().startswith(name.lower())]
                lines.insert(place, line)
            case 3:
                lines[:] = [one.swapcase() if one.startswith(name) else one for one in lines]
            case 4:
                lines.insert(place, draw(st.sampled_from(ODD_LINES)))
            case 5:
                lines.extend(f"X-{number}: y" for number in range(draw(st.integers(100, 140))))
    head = wire("\n".join([draw(st.sampled_from(REQUEST_LINES)), *lines, ""]))
    for _ in range(draw(st.integers(0, 1))):
        place = draw(st.integers(0, len(head) - 4))
        bad = draw(st.sampled_from([b"\n", b"\r", b"\x00", b"\xff", b" ", b"\t", b":", b""]))
        head = head[:place] + bad + head[place + 1 :]
    return head


@given(heads(), st.booleans())
@settings(max_examples=2000, deadline=None)
def test_whatever_it_takes_the_reference_takes_as_the_same(head: bytes, compression: bool) -> None:
    compare(head, compression=compression)


@given(heads())
@settings(max_examples=200, deadline=None)
def test_a_head_in_pieces_is_no_head(head: bytes) -> None:
    assert read_request(head[:-1], compression=False) is None
    assert read_request(head + b"x", compression=False) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Host", None),
        ("Host", "a\r\nHost: b"),
        ("Upgrade", "h2c"),
        ("Connection", "close"),
        ("Connection", "Upgrade, x"),
        ("Sec-WebSocket-Version", "8"),
        ("Sec-WebSocket-Key", "short"),
        ("Sec-WebSocket-Protocol", "a,,b"),
        ("Sec-WebSocket-Protocol", "no token"),
        ("Content-Length", "0"),
        ("Transfer-Encoding", "chunked"),
        ("X", "\x00"),
        ("X", "é"),
        ("X", "x" * 8200),
        ("X", "\r\n".join(f"X-{number}: y" for number in range(130))),
    ],
)
def test_what_is_left_to_the_reference(name: str, value: str | None) -> None:
    usual = [line for line in USUAL if not line.startswith(f"{name}:")]
    told = [] if value is None else [f"{name}: {value}"]
    head = "\r\n".join(["GET / HTTP/1.1", *usual, *told, "", ""]).encode("latin-1")
    assert read_request(head, compression=False) is None
