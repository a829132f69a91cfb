"""What a hostile peer may send over an open WebSocket: frames, sound or not, in any chops."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from carriers import BINARY, CLOSE, CONT, PING, PONG, TEXT, F, closing
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from .chance import weighted

__all__ = ["Cut", "Item", "cuts", "frames", "pieces", "to_bytes"]

Item = F | bytes
"""A frame, or bytes that are none."""


def _deflated(data: bytes) -> bytes:
    """The payload of a compressed frame (RFC 7692 section 7.2.1)."""
    deflate = zlib.compressobj(wbits=-15)
    return (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH))[:-4]


def _in_parts(opcode: int, data: bytes, cuts: Sequence[int], *, rsv: int = 0) -> list[Item]:
    edges = sorted(cut % (len(data) + 1) for cut in cuts)
    parts = [data[a:b] for a, b in zip([0, *edges], [*edges, len(data)], strict=True)]
    last = len(parts) - 1
    return [
        F(CONT if n else opcode, part, fin=n == last, rsv=0 if n else rsv)
        for n, part in enumerate(parts)
    ]


def _framed(
    opcode: int,
    payload: bytes,
    *,
    fin: bool = True,
    rsv: int = 0,
    wrong_mask: bool = False,
    size_bytes: int = 0,
    claims: int | None = None,
) -> list[Item]:
    return [F(opcode, payload, fin, rsv, wrong_mask, size_bytes, claims)]


def _fit(opcode: int, body: bytes) -> int:
    """This opcode, or that of what is no text."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return BINARY
    return opcode


_opcodes = st.sampled_from([TEXT, BINARY, CONT, PING, PONG])
_data_opcodes = st.sampled_from([TEXT, BINARY])
_small = st.binary(max_size=30)
_bodies = weighted(
    (2, _small),
    (
        3,
        st.sampled_from(
            [
                *(b"", b"plain", "h\u00e9\u20ac\U0001f600".encode(), bytes(125), bytes(126)),
                *(b"x" * 500, b"y" * 999, b"y" * 1000),
            ]
        ),
    ),
)
_closes = st.builds(
    closing,
    st.one_of(
        st.sampled_from([1000, 1001, 1002, 1005, 1006, 1007, 1013, 1015, 3000, 4000, 4999]),
        st.integers(0, 65535),
    ),
    st.sampled_from([b"", b"bye", b"\xff", "caf\u00e9\n".encode(), b"r" * 123]),
)
_controls = st.builds(_framed, st.sampled_from([PING, PONG]), st.binary(max_size=20))


def _whole(opcode: int, body: bytes) -> list[Item]:
    return _framed(_fit(opcode, body), body)


def _fragmented(opcode: int, body: bytes, cuts: Sequence[int]) -> list[Item]:
    return _in_parts(_fit(opcode, body), body, cuts)


def _compressed(opcode: int, body: bytes, cuts: Sequence[int]) -> list[Item]:
    return _in_parts(_fit(opcode, body), _deflated(body), cuts, rsv=4)


def _flood(body: bytes, times: int) -> list[Item]:
    """More than one turn of the loop takes in; what follows JSON may be blanks."""
    return _whole(TEXT, body.ljust(1000)) * times


_few = st.lists(st.integers(0, 1200), max_size=7)
_many = st.lists(st.integers(0, 1200), min_size=8, max_size=12)
_no_text = st.sampled_from(
    [b"\xff", b"\xed\xa0\x80", b"\xe2\x82", b"\xac", b"ok\xf0\x9f", b"\x98\x80 ok"]
)
_too_large = st.one_of(st.sampled_from([1000, 1001]), st.integers(1002, 1300)).map(b"z".__mul__)
_no_deflate = st.sampled_from(
    [
        *(b"", b"\x00", b"\xff\xff", b"\x12\x18", _deflated(b"open")[:-2], bytes(1100)),
        *(_deflated(b"\xff"), _deflated(b"x" * 1001), _deflated(bytes(100_000))),
    ]
)
_claims = st.sampled_from([0, 5, 125, 126, 999, 1001, 1200, 65535, 65536, 1 << 40, 1 << 63])
_bad: list[SearchStrategy[list[Item]]] = [
    st.builds(_framed, st.just(TEXT), _no_text),
    st.builds(_in_parts, st.just(TEXT), _no_text, _few),
    st.builds(_framed, _data_opcodes, _too_large),
    _too_large.map(lambda data: [F(BINARY, data), closing(1000)]),
    st.builds(_in_parts, _data_opcodes, _too_large, _few),
    st.builds(_fragmented, _data_opcodes, _small, _many),
    st.builds(_framed, _data_opcodes, st.just(bytes(70_000))),
    st.builds(_framed, _data_opcodes, _no_deflate, rsv=st.just(4)),
    st.builds(_in_parts, _data_opcodes, _no_deflate, _few, rsv=st.just(4)),
    st.builds(_framed, _opcodes, _small, fin=st.booleans(), rsv=st.integers(0, 7)),
    st.builds(_framed, st.integers(0, 15), _small),
    st.builds(
        _framed,
        st.sampled_from([CONT, 3, CLOSE, PING, PONG, 11]),
        _too_large,
        rsv=st.sampled_from([0, 4, 4, 1]),
    ),
    st.builds(_framed, _opcodes, _small, wrong_mask=st.just(True)),
    st.builds(_framed, _opcodes, _small, size_bytes=st.sampled_from([1, 2, 8])),
    st.builds(_framed, _opcodes, _small, claims=_claims),
    st.sampled_from([PING, PONG, CLOSE]).map(lambda opcode: [F(opcode, bytes(126))]),
    st.sampled_from([[F(CLOSE)], [F(CLOSE, b"\x03")], [F(TEXT, b"open", fin=False)], [F(CONT)]]),
    _closes.map(lambda frame: [frame]),
    _closes.map(lambda frame: [frame]),
    st.binary(min_size=1, max_size=30).map(lambda data: [data]),
]


def frames(
    *said: SearchStrategy[bytes],
    calm: SearchStrategy[bytes] = _bodies,
    wild: SearchStrategy[bytes] = _bodies,
    deflate: bool,
) -> SearchStrategy[list[Item]]:
    """What comes over an open WebSocket: frames in order, and then anything.

    Args:
        said: Messages with which it begins.
        calm: The messages that frames in order carry.
        wild: Those of later ones.
        deflate: Whether they may be compressed.
    """

    def sound(contents: SearchStrategy[bytes]) -> list[tuple[int, SearchStrategy[list[Item]]]]:
        whole = st.builds(_whole, _data_opcodes, contents)
        return [
            (12, whole),
            (6, st.builds(_fragmented, _data_opcodes, contents, _few)),
            (6 * deflate, st.builds(_compressed, _data_opcodes, contents, _few)),
            (4, _controls),
            (1, whole.map(lambda items: items * 2)),
            (1, st.builds(_flood, contents, st.integers(8, 11))),
        ]

    return st.builds(
        lambda *talks: [item for talk in talks for items in talk for item in items],
        st.tuples(*(st.builds(_whole, st.just(TEXT), contents) for contents in said)),
        st.lists(weighted(*sound(calm)), max_size=20),
        st.lists(weighted(*sound(wild), *((1, one) for one in _bad)), max_size=20),
    )


def to_bytes(items: Iterable[Item], side: str) -> bytes:
    """What a peer sends to this side."""
    return b"".join(item if isinstance(item, bytes) else item.to(side) for item in items)


class Cut(NamedTuple):
    """Where one read ends, and what happens then."""

    at: int
    """In thousandths of all there is; below zero, as many bytes around the end of the head."""
    then: str


def cuts(*deeds: str) -> SearchStrategy[list[Cut]]:
    """How bytes arrive, and what else happens between two reads."""
    at = weighted((3, st.integers(0, 1000)), (1, st.integers(-6, -1)))
    return st.lists(st.builds(Cut, at, st.sampled_from(deeds)), max_size=12)


def pieces(head: bytes, body: bytes, cuts: Sequence[Cut]) -> list[tuple[bytes, str]]:
    """What is read, and what happens after it."""
    data = head + body

    def place(at: int) -> int:
        return at * len(data) // 1000 if at >= 0 else min(max(0, len(head) + 4 + at), len(data))

    edges = sorted((place(cut.at), cut.then) for cut in cuts)
    starts = [0, *(at for at, _ in edges)]
    ends = [*edges, (len(data), "turn")]
    return [(data[a:b], then) for a, (b, then) in zip(starts, ends, strict=True)]
