from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wse import Limits
from wse.heartbeat import Heartbeat, Pulse

LIMITS = Limits(heartbeat_interval=25, heartbeat_timeout=10)


def check(
    heartbeat: Heartbeat, now: float, *, deaf: bool = False, unwritten: int = 0
) -> tuple[Pulse, float]:
    return heartbeat.check(now, deaf=deaf, unwritten=unwritten)


def test_silence_is_asked_and_then_given_up() -> None:
    heartbeat = Heartbeat(LIMITS, 100)
    assert check(heartbeat, 125) == (Pulse.ASK, 135)
    assert check(heartbeat, 135) == (Pulse.LOST, 135)


def test_who_says_something_is_left_alone() -> None:
    heartbeat = Heartbeat(LIMITS, 100)
    heartbeat.heard = 120
    assert check(heartbeat, 125) == (Pulse.ALIVE, 145)


def test_who_answers_lives_and_is_asked_again() -> None:
    heartbeat = Heartbeat(LIMITS, 0)
    assert check(heartbeat, 25) == (Pulse.ASK, 35)
    heartbeat.heard = 26
    assert check(heartbeat, 35) == (Pulse.ALIVE, 51)
    assert check(heartbeat, 51) == (Pulse.ASK, 61)
    assert check(heartbeat, 61) == (Pulse.LOST, 61)


def test_silence_does_not_count_while_we_do_not_read_but_the_peer_is_asked() -> None:
    heartbeat = Heartbeat(LIMITS, 0)
    assert check(heartbeat, 25, deaf=True) == (Pulse.ASK, 50)
    assert check(heartbeat, 50, deaf=True) == (Pulse.ASK, 75)
    assert check(heartbeat, 75) == (Pulse.ASK, 85)
    assert check(heartbeat, 85) == (Pulse.LOST, 85)


def test_reading_of_a_full_send_buffer_is_a_sign_of_life() -> None:
    heartbeat = Heartbeat(LIMITS, 0)
    assert check(heartbeat, 25, unwritten=1000) == (Pulse.ASK, 35)
    assert check(heartbeat, 35, unwritten=999) == (Pulse.ALIVE, 60)
    assert check(heartbeat, 60, unwritten=999) == (Pulse.ASK, 70)
    assert check(heartbeat, 70, unwritten=999) == (Pulse.LOST, 70)


@given(st.lists(st.floats(0, 100), max_size=20), st.integers(0, 10_000))
def test_a_dead_peer_is_noticed_in_time_whatever_it_said_before(
    said: list[float], unwritten: int
) -> None:
    heartbeat = Heartbeat(LIMITS, 0)
    now = LIMITS.heartbeat_interval
    while True:
        heartbeat.heard = max([0.0, *(moment for moment in said if moment <= now)])
        pulse, again = check(heartbeat, now, unwritten=unwritten)
        if pulse is Pulse.LOST:
            break
        assert again > now
        now = again
    assert 35 - 1e-6 <= now - heartbeat.heard <= 35 + 1e-6
