from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import pytest

from wse.messages import Call, Challenge, Event, Failure, Hi, Message, Result, Welcome
from wse.stages import CLIENT, METERED, SERVER, Action, Rules, Stage

KINDS: tuple[type[Message], ...] = (Hi, Challenge, Welcome, Event, Call, Result, Failure)

DELIVER, IGNORE, VIOLATION, UNHANDLED, IDENTIFY, ANSWER, SOLVE, READY, HOLD = (
    Action.DELIVER,
    Action.IGNORE,
    Action.VIOLATION,
    Action.UNHANDLED,
    Action.IDENTIFY,
    Action.ANSWER,
    Action.SOLVE,
    Action.READY,
    Action.HOLD,
)
TALKING = (UNHANDLED, UNHANDLED, UNHANDLED, DELIVER, DELIVER, DELIVER, DELIVER)

# One action for each of: Hi, Challenge, Welcome, Event, Call, Result, Failure.
SERVER_TABLE = {
    Stage.STRANGER: (IDENTIFY, *[VIOLATION] * 6),
    Stage.IDENTIFYING: (IGNORE,) * 7,
    Stage.CHALLENGED: (IGNORE, ANSWER, *[IGNORE] * 5),
    Stage.READY: TALKING,
    Stage.LEAVING: (*[IGNORE] * 5, DELIVER, DELIVER),
    Stage.CLOSED: (IGNORE,) * 7,
}
CLIENT_TABLE = {
    Stage.STRANGER: (IGNORE, SOLVE, READY, HOLD, HOLD, IGNORE, IGNORE),
    Stage.READY: TALKING,
    Stage.CLOSED: (IGNORE,) * 7,
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
    assert set(CLIENT) == set(CLIENT_TABLE) == {Stage.STRANGER, Stage.READY, Stage.CLOSED}


@pytest.mark.parametrize(("stage", "kind", "action"), flat(SERVER_TABLE))
def test_a_server(stage: Stage, kind: type[Message], action: Action) -> None:
    assert SERVER[stage].actions[kind] is action


@pytest.mark.parametrize(("stage", "kind", "action"), flat(CLIENT_TABLE))
def test_a_client(stage: Stage, kind: type[Message], action: Action) -> None:
    assert CLIENT[stage].actions[kind] is action


@pytest.mark.parametrize("stage", Stage)
def test_a_server_that_counts_does_so_with_all_that_a_known_peer_says(stage: Stage) -> None:
    for kind in KINDS:
        expected = Action.METER if stage is Stage.READY else SERVER[stage].actions[kind]
        assert METERED[stage].actions[kind] is expected


@pytest.mark.parametrize("stage", Stage)
def test_a_server_is_deaf_while_it_decides_and_after_the_end(stage: Stage) -> None:
    assert SERVER[stage].hears == (stage not in (Stage.IDENTIFYING, Stage.CLOSED))


@pytest.mark.parametrize("stage", CLIENT)
def test_a_client_is_deaf_after_the_end(stage: Stage) -> None:
    assert CLIENT[stage].hears == (stage is not Stage.CLOSED)


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
