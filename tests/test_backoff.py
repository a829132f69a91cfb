from __future__ import annotations

import random

import pytest

from wse import Backoff


def test_defaults() -> None:
    assert Backoff() == Backoff(first=0.5, factor=2.0, cap=30.0)


def test_the_ceiling_doubles_up_to_the_cap() -> None:
    backoff = Backoff(first=0.5, factor=2.0, cap=30.0)
    assert [backoff.ceiling(n) for n in range(8)] == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_factor_of_one_stays() -> None:
    assert Backoff(first=3, factor=1, cap=9).ceiling(1000) == 3


def test_endless_attempts_stay_at_the_cap() -> None:
    assert Backoff().ceiling(10**9) == 30


def test_a_first_wait_above_the_cap_is_capped() -> None:
    assert Backoff(first=60, cap=10).ceiling(0) == 10


def test_jitter_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return high

    monkeypatch.setattr(random, "uniform", uniform)
    assert Backoff().delay(3) == 4.0
    assert asked == [(0.0, 4.0)]


def test_waits_spread_over_the_whole_range() -> None:
    backoff = Backoff(first=8.0, cap=8.0)
    quarters = {int(backoff.delay(0) // 2) for _ in range(1000)}
    assert quarters == {0, 1, 2, 3}


@pytest.mark.parametrize(
    "wrong", [{"first": 0}, {"first": -1}, {"cap": 0}, {"factor": 0.9}, {"first": float("nan")}]
)
def test_what_cannot_be(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="first > 0, factor >= 1, cap > 0"):
        Backoff(**wrong)
