"""Strategies that the others are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

__all__ = ["edited", "weighted"]

T = TypeVar("T")


def weighted(*choices: tuple[int, SearchStrategy[T]]) -> SearchStrategy[T]:
    """One of these, each as often as its weight says; `one_of` knows no weights."""
    picks = [strategy for weight, strategy in choices for _ in range(weight)]
    return st.integers(0, len(picks) - 1).flatmap(picks.__getitem__)


class Edit(NamedTuple):
    """One change of some bytes; its position is taken modulo what there is."""

    kind: str
    at: int
    value: int

    def apply(self, data: bytes) -> bytes:
        at = self.at % (len(data) + 1)
        match self.kind:
            case "set":
                return data[:at] + bytes([self.value]) + data[at + 1 :]
            case "insert":
                return data[:at] + bytes([self.value]) + data[at:]
            case "drop":
                return data[:at] + data[at + 1 + self.value % 8 :]
            case "repeat":
                return data[:at] + data[at : at + 1 + self.value % 64] * 2 + data[at:]
            case _:
                return data[:at]


_edits = st.lists(
    st.builds(
        Edit,
        st.sampled_from(["set", "insert", "drop", "repeat", "truncate"]),
        st.integers(0, 600),
        st.one_of(st.sampled_from(list(b'",:[]{}\\u0\x00\xff\x80')), st.integers(0, 255)),
    ),
    min_size=1,
    max_size=3,
)


def _apply(data: bytes, edits: Sequence[Edit]) -> bytes:
    for edit in edits:
        data = edit.apply(data)
    return data


def edited(contents: SearchStrategy[bytes]) -> SearchStrategy[bytes]:
    """These bytes with one to three changes."""
    return st.builds(_apply, contents, _edits)
