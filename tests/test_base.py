from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from websockets.datastructures import Headers

from wse.transports.base import Handshake, Transport


def handshake(query_string: str = "", **headers: str) -> Handshake:
    return Handshake(path="/ws", query_string=query_string, headers=Headers(headers), opened=0.0)


@pytest.mark.parametrize(
    ("query_string", "query"),
    [
        ("", {}),
        ("a=1&b=2", {"a": "1", "b": "2"}),
        ("a=1&a=2", {"a": "2"}),
        ("a=&b", {"a": "", "b": ""}),
        ("token=a%20b%2Bc+d%3D", {"token": "a b+c d="}),
        ("n=%C3%BC&bad=%FF", {"n": "ü", "bad": "\ufffd"}),
    ],
)
def test_query(query_string: str, query: dict[str, str]) -> None:
    assert handshake(query_string).query == query


@pytest.mark.parametrize(
    ("header", "cookies"),
    [
        ("a=1", {"a": "1"}),
        ("a=1; b=2", {"a": "1", "b": "2"}),
        ("a=1;b=x=y", {"a": "1", "b": "x=y"}),
        ('a="quoted"; b=', {"a": "quoted", "b": ""}),
        ("nonsense; a=1", {"a": "1"}),
        ("", {}),
    ],
)
def test_cookies(header: str, cookies: dict[str, str]) -> None:
    assert handshake(Cookie=header).cookies == cookies


def test_no_cookies() -> None:
    assert handshake().cookies == {}


def test_defaults() -> None:
    bare = Handshake(path="/", opened=1.5)
    assert (bare.query, bare.cookies, dict(bare.headers)) == ({}, {}, {})
    assert bare.remote_addr is None


def test_repr_shows_no_secrets() -> None:
    shown = repr(handshake("token=hunter2", Authorization="Bearer hunter3", Cookie="s=hunter4"))
    assert "/ws" in shown
    assert "hunter" not in shown


def test_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        handshake().path = "/other"  # type: ignore[misc]


@pytest.mark.parametrize("missing", sorted(Transport.__abstractmethods__))
def test_a_transport_fills_the_whole_port(missing: str) -> None:
    filled = {name: lambda *_: None for name in Transport.__abstractmethods__ if name != missing}
    partial = type("Partial", (Transport,), filled)
    with pytest.raises(TypeError, match=missing):
        partial()
