from __future__ import annotations

from typing import Any

import pytest

from wse import Limits
from wse.handler import Handler
from wse.inbox import Inbox, Job


def plain_function(_: Any) -> None: ...


async def async_function(_: Any) -> None: ...


PLAIN = Handler(plain_function, 1)
ASYNC = Handler(async_function, 1)
ORDERED = Handler(async_function, 1, ordered=True)
OTHER = Handler(async_function, 1, ordered=True)


def job(handler: Handler, payload: Any = None, size: int = 1) -> Job:
    return Job(handler, "type", payload, None, size, None)


def inbox(**limits: int) -> Inbox:
    return Inbox(Limits(**limits))


def taken(box: Inbox) -> list[Any]:
    """Payloads of the jobs that may start now; none of them stays at work."""
    payloads = []
    while (one := box.next()) is not None:
        payloads.append(one.payload)
    return payloads


@pytest.mark.parametrize("handler", [PLAIN, ASYNC, ORDERED])
def test_an_idle_inbox_admits_everybody(handler: Handler) -> None:
    box = inbox()
    assert box.admits(handler)
    assert len(box) == 0
    assert box.next() is None


@pytest.mark.parametrize("handler", [PLAIN, ASYNC, ORDERED])
def test_handlers_overlap_once_they_have_started(handler: Handler) -> None:
    box = inbox()
    box.begin(ASYNC, started=True)
    assert box.admits(handler)


def test_nobody_overtakes_what_waits() -> None:
    box = inbox(max_handlers=1)
    box.begin(ASYNC, started=True)
    for n in range(3):
        box.keep(job(PLAIN, n))
    box.end(ASYNC)
    assert not box.admits(PLAIN)
    assert not box.admits(ASYNC)
    assert taken(box) == [0, 1, 2]
    assert box.admits(PLAIN)


# -- how many at work ------------------------------------------------------------------------------


def test_so_many_may_be_at_work() -> None:
    box = inbox(max_handlers=3)
    for _ in range(3):
        assert box.admits(ASYNC)
        box.begin(ASYNC, started=True)
    assert not box.admits(ASYNC)
    assert not box.admits(PLAIN)
    box.end(ASYNC)
    assert box.admits(ASYNC)
    assert box.admits(PLAIN)


def test_each_end_lets_one_start() -> None:
    box = inbox(max_handlers=2)
    for _ in range(2):
        box.begin(ASYNC, started=True)
    for n in range(4):
        box.keep(job(ASYNC, n))
    assert box.next() is None
    for expected in range(4):
        box.end(ASYNC)
        first = box.next()
        assert first is not None
        assert first.payload == expected
        box.begin(ASYNC, started=True)
        assert box.next() is None
    assert len(box) == 0


# -- ordered ---------------------------------------------------------------------------------------


def test_an_ordered_handler_waits_for_its_predecessor_and_others_wait_behind_it() -> None:
    box = inbox()
    box.begin(ORDERED, started=True)
    assert not box.admits(ORDERED)
    box.keep(job(ORDERED, 1))
    assert not box.admits(PLAIN)
    box.keep(job(PLAIN, 2))
    box.keep(job(ORDERED, 3))
    assert box.next() is None
    box.end(ORDERED)
    first = box.next()
    assert first is not None
    assert first.payload == 1
    box.begin(ORDERED, started=True)
    assert taken(box) == [2]
    box.end(ORDERED)
    assert taken(box) == [3]


def test_ordered_handlers_of_other_types_do_not_wait_for_each_other() -> None:
    box = inbox()
    box.begin(ORDERED, started=True)
    assert box.admits(OTHER)
    box.begin(OTHER, started=True)
    assert not box.admits(OTHER)
    box.end(ORDERED)
    assert box.admits(ORDERED)
    assert not box.admits(OTHER)


def test_an_unordered_handler_does_not_wait_for_its_predecessor() -> None:
    box = inbox()
    box.begin(ASYNC, started=True)
    box.begin(ORDERED, started=True)
    assert box.admits(ASYNC)


# -- tasks that have not taken their first step (Python 3.11) --------------------------------------


def test_a_plain_handler_waits_until_every_task_took_its_first_step() -> None:
    box = inbox()
    for _ in range(2):
        assert box.admits(ASYNC)
        box.begin(ASYNC, started=False)
    assert not box.admits(PLAIN)
    box.keep(job(PLAIN, 1))
    box.first_step()
    assert box.next() is None
    box.first_step()
    assert taken(box) == [1]


def test_an_async_handler_does_not_overtake_a_plain_one_that_waits() -> None:
    box = inbox()
    box.begin(ASYNC, started=False)
    box.keep(job(PLAIN, 1))
    assert not box.admits(ASYNC)
    box.keep(job(ASYNC, 2))
    box.first_step()
    assert taken(box) == [1, 2]


def test_tasks_that_start_at_once_let_plain_handlers_pass() -> None:
    box = inbox()
    box.begin(ASYNC, started=True)
    assert box.admits(PLAIN)


def test_an_ordered_handler_that_has_not_started_is_at_work() -> None:
    box = inbox()
    box.begin(ORDERED, started=False)
    assert not box.admits(ORDERED)
    box.first_step()
    assert not box.admits(ORDERED)
    box.end(ORDERED)
    assert box.admits(ORDERED)


# -- its bound -------------------------------------------------------------------------------------


def test_full_by_messages() -> None:
    box = inbox(max_inbox_messages=3)
    fullness = []
    for _ in range(4):
        box.keep(job(PLAIN))
        fullness.append(box.full)
    for _ in range(2):
        box.next()
        fullness.append(box.full)
    assert fullness == [False, False, True, True, True, False]


def test_full_by_bytes() -> None:
    box = inbox(max_inbox_bytes=100)
    fullness = []
    for size in (99, 1, 0, 98, 1):
        if size:
            box.keep(job(PLAIN, size=size))
        else:
            box.next()
        fullness.append(box.full)
    assert fullness == [False, True, False, False, True]


@pytest.mark.parametrize("limits", [{"max_inbox_messages": 3}, {"max_inbox_bytes": 30}])
def test_it_is_overfull_with_twice_as_much(limits: dict[str, int]) -> None:
    box = inbox(**limits)
    states = []
    for _ in range(7):
        box.keep(job(PLAIN, size=10))
        states.append((box.full, box.overfull))
    assert states == [(False, False)] * 2 + [(True, False)] * 3 + [(True, True)] * 2


def test_a_cleared_inbox_is_empty() -> None:
    box = inbox(max_inbox_messages=1, max_inbox_bytes=10)
    box.begin(ASYNC, started=False)
    box.keep(job(PLAIN, size=1000))
    box.clear()
    assert box.unstarted == 0
    assert not box.full
    assert len(box) == 0
    assert box.next() is None
    assert box.admits(PLAIN)
