"""Heads of HTTP that a hostile peer may send, in order and nearly so."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from carriers import UPGRADE
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from .chance import edited, weighted

__all__ = [
    "ANSWERS",
    "DEFLATE_ANSWER",
    "DEFLATE_REQUEST",
    "REQUESTS",
    "SOUND_ANSWER",
    "SOUND_REQUEST",
]

_VALUES = ["", "x", "\xe9", "a, b", "localhost", "0", "99999999999999999999", "x" * 300]


def _head(line: str, headers: Iterable[tuple[str, str | None]], end: str = "\r\n\r\n") -> bytes:
    lines = [line, *(f"{name}: {value}" for name, value in headers if value is not None)]
    return ("\r\n".join(lines) + end).encode("latin-1")


def _replaced(
    sound: Mapping[str, str], others: Sequence[tuple[str, str | None]]
) -> list[tuple[str, str | None]]:
    """Headers with some replaced, left out (None), or added once more ("twice")."""
    headers: list[tuple[str, str | None]] = list(sound.items())
    for name, value in others:
        kept = [one for one in headers if one[0] != name or value == "twice"]
        headers = [*kept, (name, value)]
    return headers


def _heads(
    lines: Sequence[str], sound: Mapping[str, str], odd: Mapping[str, Sequence[str | None]]
) -> SearchStrategy[bytes]:
    """Heads that are nearly in order, or edited."""
    any_value = {name: [None, "twice", *_VALUES] for name in (*sound, "X-Other")}
    others = [
        st.tuples(st.just(name), st.sampled_from(values))
        for names in (odd, any_value)
        for name, values in names.items()
    ]
    headers = st.lists(st.one_of(*others), max_size=3).map(lambda others: _replaced(sound, others))
    ends = st.sampled_from(["\r\n\r\n"] * 6 + ["\n\n", "\r\n", "", "\r\n : \r\n\r\n"])
    whole = st.builds(
        _head, weighted((3, st.just(lines[0])), (1, st.sampled_from(lines))), headers, ends
    )
    return weighted((3, whole), (1, edited(whole)), (1, st.binary(max_size=60)))


_REQUEST_HEADERS = {**UPGRADE, "Sec-WebSocket-Protocol": "wse-default-json"}
SOUND_REQUEST = _head("GET /?a=1 HTTP/1.1", _REQUEST_HEADERS.items())
DEFLATE_REQUEST = _head(
    "GET / HTTP/1.1",
    [*_REQUEST_HEADERS.items(), ("Sec-WebSocket-Extensions", "permessage-deflate")],
)
REQUESTS: SearchStrategy[bytes] = weighted(
    (5, st.sampled_from([SOUND_REQUEST, DEFLATE_REQUEST])),
    (
        2,
        _heads(
            [
                *("GET / HTTP/1.1", "GET /a?b=%zz&c HTTP/1.1", "GET http://x/ HTTP/1.1", "GET /"),
                *("POST / HTTP/1.1", "GET / HTTP/1.0", "GET / HTTP/2.0", "GET  / HTTP/1.1", ""),
                *("get / http/1.1", "PRI * HTTP/2.0", "GET /" + "p" * 9000 + " HTTP/1.1"),
            ],
            _REQUEST_HEADERS,
            {
                "Sec-WebSocket-Key": ["", "short", "not base64!!", "A" * 24, "\xe9", "twice"],
                "Sec-WebSocket-Version": ["12", "13, 12", "thirteen", "-1", None],
                "Sec-WebSocket-Protocol": [None, "x", "x, wse-default-json", ",", "a b", '"'],
                "Sec-WebSocket-Extensions": [
                    *("permessage-deflate", "permessage-deflate; server_max_window_bits=8", ";"),
                    *("permessage-deflate; server_max_window_bits=99", "permessage-deflate; a; a"),
                    "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
                ],
                "Connection": ["close", "keep-alive, Upgrade", "upgrade", None],
                "Upgrade": ["h2c", "WebSocket", "websocket, h2c", None],
                "Origin": ["http://localhost", "https://evil.example", "null", "://", "http://["],
                "Host": [None, "", "localhost:80:80", "[::1", "evil.example"],
                "Content-Length": ["5", "-1", "x"],
                "Transfer-Encoding": ["chunked"],
                "X-Forwarded-For": ["1.2.3.4", "nobody", "1.2.3.4, ::1, \xe9", ""],
                "Cookie": ["a=1; b", ";;=", '"'],
            },
        ),
    ),
)
"""The head of an HTTP request for a WebSocket."""

_ANSWER_HEADERS = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Accept": "{accept}",
    "Sec-WebSocket-Protocol": "wse-default-json",
}
_SWITCHES = "HTTP/1.1 101 Switching Protocols"
SOUND_ANSWER = _head(_SWITCHES, _ANSWER_HEADERS.items())
DEFLATE_ANSWER = _head(
    _SWITCHES, [*_ANSWER_HEADERS.items(), ("Sec-WebSocket-Extensions", "permessage-deflate")]
)
_refusals = st.builds(
    lambda status, wait: _head(f"HTTP/1.1 {status}", [("Retry-After", wait)]),
    st.sampled_from(["503 Busy", "429 Slow down", "500 Oh", "401 No", "302 Found", "200 OK"]),
    st.sampled_from(["3", "-1", "soon", "\xb2", "9" * 400, "1e9", ""]),
)
ANSWERS: SearchStrategy[bytes] = weighted(
    (12, st.sampled_from([SOUND_ANSWER, DEFLATE_ANSWER])),
    (1, _refusals),
    (
        4,
        _heads(
            [
                *(_SWITCHES, "HTTP/1.1 101", "HTTP/1.1 200 OK", "HTTP/1.1 302 Found", "HTTP/1.1"),
                *("HTTP/1.1 503 Busy", "HTTP/1.1 429 Slow down", "HTTP/1.1 401 No", ""),
                *("HTTP/1.1 99 X", "HTTP/1.1 1000 X", "HTTP/1.1 abc X", "http/1.1 101 X"),
                *("HTTP/1.1 400 Bad\xe9", "HTTP/2 101 X", "HTTP/1.0 101 X", "SSH-2.0-OpenSSH_9.0"),
            ],
            _ANSWER_HEADERS,
            {
                "Sec-WebSocket-Accept": [None, "", "wrong", "twice"],
                "Sec-WebSocket-Protocol": [None, "x", "a, b", ""],
                "Sec-WebSocket-Extensions": [
                    *("permessage-deflate", "permessage-deflate; client_max_window_bits=9", ";"),
                    *("permessage-deflate; server_max_window_bits=99", "permessage-deflate; a=1"),
                    "permessage-deflate, permessage-deflate",
                ],
                "Connection": ["close", None],
                "Upgrade": ["h2c", None],
                "Content-Length": ["5", "-1", "x", "9" * 30, "2000000"],
                "Transfer-Encoding": ["chunked", "gzip", "chunked, chunked"],
                "Location": ["/", "ws://elsewhere/"],
            },
        ),
    ),
)
"""The head of an HTTP answer; `{accept}` stands for what the client wants to see."""
