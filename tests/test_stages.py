from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import pytest

from wse.messages import (
    Ack,
    Bye,
    Call,
    Cancel,
    Challenge,
    Event,
    Failure,
    Hi,
    Message,
    Ping,
    Pong,
    Result,
    Welcome,
)
from wse.stages import CLIENT, METERED, SERVER, Action, Rules, Stage

CONTROLS: tuple[type[Message], ...] = (Ack, Ping, Pong, Bye)
KINDS: tuple[type[Message], ...] = (
    *(Hi, Challenge, Welcome, Event, Call, Result, Failure, Cancel),
    *CONTROLS,
)

DELIVER, IGNORE, VIOLATION, UNHANDLED, IDENTIFY, ANSWER, SOLVE, READY, HOLD, CONTROL = (
    Action.DELIVER,
    Action.IGNORE,
    Action.VIOLATION,
    Action.UNHANDLED,
    Action.IDENTIFY,
    Action.ANSWER,
    Action.SOLVE,
    Action.READY,
    Action.HOLD,
    Action.CONTROL,
)
TALKING = (*[UNHANDLED] * 3, *[DELIVER] * 5, *[CONTROL] * 4)
DEAF = (IGNORE,) * 12

# One action for each of: Hi, Challenge, Welcome, Event, Call, Result, Failure, Cancel; and for what
# does not count, Ack, Ping, Pong, Bye.
SERVER_TABLE = {
    Stage.STRANGER: (IDENTIFY, *[VIOLATION] * 11),
    Stage.IDENTIFYING: DEAF,
    Stage.CHALLENGED: (IGNORE, ANSWER, *[IGNORE] * 10),
    Stage.READY: TALKING,
    Stage.LEAVING: (*[IGNORE] * 5, *[DELIVER] * 3, *[CONTROL] * 4),
    Stage.SUSPENDED: DEAF,
    Stage.CLOSED: DEAF,
}
CLIENT_TABLE = {
    Stage.STRANGER: (IGNORE, SOLVE, READY, HOLD, HOLD, *[IGNORE] * 7),
    Stage.READY: TALKING,
    Stage.SUSPENDED: DEAF,
    Stage.CLOSED: DEAF,
}


def flat(
    table: Mapping[Stage, tuple[Action, ...]],
) -> list[tuple[Stage, type[Message], Action]]:
    return [
        (stage, kind, action)
        for stage, actions in table.items()
        for kind, action in zip(KINDS, actions, strict=True)
    ]


def test_the_tables_here_know_every_kind_and_every_stage() -> None:
    assert set(KINDS) == set(get_args(Message))
    assert set(SERVER) == set(SERVER_TABLE) == set(Stage)
    assert set(CLIENT) == set(CLIENT_TABLE)
    assert set(CLIENT) == {Stage.STRANGER, Stage.READY, Stage.SUSPENDED, Stage.CLOSED}


@pytest.mark.parametrize(("stage", "kind", "action"), flat(SERVER_TABLE))
def test_a_server(stage: Stage, kind: type[Message], action: Action) -> None:
    assert SERVER[stage].actions[kind] is action


@pytest.mark.parametrize(("stage", "kind", "action"), flat(CLIENT_TABLE))
def test_a_client(stage: Stage, kind: type[Message], action: Action) -> None:
    assert CLIENT[stage].actions[kind] is action


@pytest.mark.parametrize("stage", Stage)
def test_a_server_that_meters_does_so_with_what_a_known_peer_says_and_costs(stage: Stage) -> None:
    for kind in KINDS:
        metered = stage is Stage.READY and kind not in (Cancel, *CONTROLS)
        expected = Action.METER if metered else SERVER[stage].actions[kind]
        assert METERED[stage].actions[kind] is expected


@pytest.mark.parametrize("stage", Stage)
def test_a_server_is_deaf_while_it_decides_while_the_device_is_away_and_after_the_end(
    stage: Stage,
) -> None:
    deaf = (Stage.IDENTIFYING, Stage.SUSPENDED, Stage.CLOSED)
    assert SERVER[stage].hears == (stage not in deaf)


@pytest.mark.parametrize("stage", CLIENT)
def test_a_client_is_deaf_while_it_is_away_and_after_the_end(stage: Stage) -> None:
    assert CLIENT[stage].hears == (stage not in (Stage.SUSPENDED, Stage.CLOSED))


def test_the_unreadable_is_a_violation_but_while_an_answer_is_awaited() -> None:
    assert SERVER[Stage.STRANGER].unreadable is VIOLATION
    assert SERVER[Stage.CHALLENGED].unreadable is IGNORE
    assert SERVER[Stage.READY].unreadable is VIOLATION
    assert SERVER[Stage.LEAVING].unreadable is IGNORE
    assert CLIENT[Stage.STRANGER].unreadable is VIOLATION
    assert CLIENT[Stage.READY].unreadable is VIOLATION


def test_rules_keep_their_own_copy() -> None:
    actions: dict[type[Message], Action] = {Hi: IDENTIFY}
    rules = Rules(IGNORE, actions)
    actions[Hi] = VIOLATION
    assert rules.actions[Hi] is IDENTIFY
    assert rules.actions[Event] is IGNORE
