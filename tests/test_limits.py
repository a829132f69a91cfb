from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, asdict, fields
from typing import Any

import pytest

from wse import Limits

NAMES = [field.name for field in fields(Limits)]


def test_defaults() -> None:
    assert asdict(Limits()) == {
        "upgrade_timeout": 5.0,
        "authentication_timeout": 10.0,
        "max_upgrading": 4096,
        "max_strangers": 1000,
        "max_connections_per_address": None,
        "max_upgrade_bytes": 16_384,
        "max_stranger_message_bytes": 16_384,
        "max_message_bytes": 1_048_576,
        "max_fragments": 128,
        "max_turn_bytes": 16_384,
        "max_challenge_rounds": 8,
        "max_unwritten_bytes": 1_048_576,
        "max_unwritten_messages": 1_024,
        "max_handlers": 64,
        "max_inbox_messages": 1_024,
        "max_inbox_bytes": 1_048_576,
        "max_event_handlers": 1_000,
        "messages_per_second": None,
        "user_messages_per_second": None,
        "rate_burst_seconds": 10.0,
        "heartbeat_interval": 25.0,
        "heartbeat_timeout": 10.0,
        "session_window": 120.0,
        "reload_window": 5.0,
        "max_kept_messages": 1_024,
        "max_kept_bytes": 1_048_576,
        "max_suspended_bytes": 268_435_456,
        "close_timeout": 5.0,
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0, -1])
def test_a_bound_is_positive(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=rf"Limits\.{name} must be positive"):
        Limits(**{name: value})


SECONDS = {
    "upgrade_timeout",
    "authentication_timeout",
    "messages_per_second",
    "user_messages_per_second",
    "rate_burst_seconds",
    "heartbeat_interval",
    "heartbeat_timeout",
    "session_window",
    "reload_window",
    "close_timeout",
}


@pytest.mark.parametrize("name", sorted(SECONDS))
@pytest.mark.parametrize("value", [-0.5, math.nan, math.inf, -math.inf])
def test_times_and_rates_are_finite(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"Limits\.{name} must be positive and finite"):
        Limits(**{name: value})  # type: ignore[arg-type]
    assert getattr(Limits(**{name: 0.5}), name) == 0.5  # type: ignore[arg-type]


@pytest.mark.parametrize("name", sorted(set(NAMES) - SECONDS))
@pytest.mark.parametrize("value", [0.5, 1.0, math.nan, math.inf])
def test_sizes_and_counts_are_whole_numbers(name: str, value: float) -> None:
    with pytest.raises(TypeError, match=rf"Limits\.{name} must be a whole number"):
        Limits(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", ["1", True])
def test_a_bound_is_a_number(name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=rf"Limits\.{name} must be a (whole )?number"):
        Limits(**{name: value})


@pytest.mark.parametrize("name", NAMES)
def test_each_bound_can_be_named(name: str) -> None:
    assert getattr(Limits(**{name: 1}), name) == 1


def test_bounds_are_given_by_name_only() -> None:
    with pytest.raises(TypeError):
        Limits(5.0)  # type: ignore[call-arg]


@pytest.mark.parametrize("name", NAMES)
def test_only_what_is_off_by_default_and_sessions_can_be_turned_off(name: str) -> None:
    off: dict[str, Any] = {name: None}
    if getattr(Limits(), name) is None or name == "session_window":
        assert getattr(Limits(**off), name) is None
    else:
        with pytest.raises(TypeError, match=rf"Limits\.{name} must be a (whole )?number"):
            Limits(**off)


def test_limits_are_frozen() -> None:
    limits = Limits()
    with pytest.raises(FrozenInstanceError):
        limits.max_handlers = 1  # type: ignore[misc]


def test_equal_limits_are_one_value() -> None:
    assert Limits(max_handlers=3) == Limits(max_handlers=3)
    assert len({Limits(), Limits()}) == 1
