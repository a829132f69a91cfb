"""What handlers ask for, and whether they get it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec

from wse import WseError

__all__ = ["TYPED", "check_error", "check_plain", "packs_small"]


class Numbers(msgspec.Struct):
    """Two of them."""

    a: int
    b: int


def check_plain(value: object) -> None:
    """Whether a value is plain data that could be sent on."""
    pending = [value]
    while pending:
        match pending.pop():
            case str() as text:
                text.encode()
            case float() as number:
                assert math.isfinite(number)
            case list() as items:
                pending += items
            case dict() as members:
                pending += members.keys()
                pending += members.values()
            case other:
                assert other is None or isinstance(other, bool | int), type(other)


def check_error(error: WseError) -> None:
    """Whether an error can be shown and sent on, whoever wrote it."""
    assert str(error).isprintable()
    check_plain(error.code)
    check_plain(error.details)


def packs_small(value: object) -> bool:
    """Whether plain data is well below the limit of a message."""
    return len(msgspec.json.encode(value)) < 1000


def _check_numbers(value: Any) -> None:
    assert type(value) is Numbers
    assert type(value.a) is type(value.b) is int


def _check_text(value: Any) -> None:
    assert type(value) is str
    check_plain(value)


def _check_count(value: Any) -> None:
    assert type(value) is int


def _check_many(value: Any) -> None:
    assert type(value) is list
    assert all(type(one) is int for one in value)


def _check_table(value: Any) -> None:
    assert type(value) is dict
    assert all(type(one) is float for one in value.values())
    check_plain(value)


def _check_fit(value: Any) -> None:
    assert type(value) is dict
    assert all(type(one) is int for many in value.values() for one in many)
    check_plain(value)


TYPED: dict[str, tuple[Any, Callable[[Any], None]]] = {
    "plain": (Any, check_plain),
    "numbers": (Numbers, _check_numbers),
    "text": (str, _check_text),
    "count": (int, _check_count),
    "many": (list[int], _check_many),
    "table": (dict[str, float], _check_table),
    "fit": (dict[str, list[int]], _check_fit),
    "add": (Numbers, _check_numbers),
}
"""The annotation of a payload by the name of a message type or procedure, and what it means."""
