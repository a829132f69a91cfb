from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from support import TOKEN
from websockets.datastructures import Headers

from wse.transports.base import Handshake, Transport, checked


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


def test_headers_are_sent_as_they_are() -> None:
    headers = {"X-One": "1", "authorization": "Bearer \xe9\t"}
    assert list(checked(headers).raw_items()) == list(headers.items())


@pytest.mark.parametrize("value", [f"{TOKEN}\r\nX-Two: 2", f"{TOKEN}\u20ac", f"{TOKEN}\0"])
def test_a_header_that_cannot_be_sent_is_not_shown(value: str) -> None:
    with pytest.raises(ValueError, match="no value for the header X-One") as caught:
        checked({"X-One": value})
    assert TOKEN not in repr(caught.value)


@pytest.mark.parametrize("name", ["", "X One", "X-\u20ac", "X:", "X\r\nY", "X\n"])
def test_a_header_without_a_proper_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="no name of a header") as caught:
        checked({"Authorization": TOKEN, name: TOKEN})
    assert TOKEN not in repr(caught.value)


@pytest.mark.parametrize("missing", sorted(Transport.__abstractmethods__))
def test_a_transport_fills_the_whole_port(missing: str) -> None:
    filled = {name: lambda *_: None for name in Transport.__abstractmethods__ if name != missing}
    partial = type("Partial", (Transport,), filled)
    with pytest.raises(TypeError, match=missing):
        partial()
