from __future__ import annotations

import asyncio
from math import inf

import pytest

from wse import CallDisconnected, CallTimeout, NoSuchClient, WseError, testing
from wse.calls import Calls


async def started(calls: Calls, stamp: str, timeout: float = 30.0) -> asyncio.Task[object]:
    """A call that waits."""
    task = asyncio.ensure_future(calls.wait(stamp, timeout))
    await asyncio.sleep(0)
    return task


def test_numbers_count() -> None:
    calls = Calls()
    assert [calls.next_number() for _ in range(3)] == [1, 2, 3]
    assert Calls().next_number() == 1


@testing.virtual_time
async def test_answers_find_their_calls_in_any_order() -> None:
    calls = Calls()
    first, second = await started(calls, "1"), await started(calls, "2")
    assert len(calls) == 2
    calls.settle("2", {"b": 2})
    calls.settle("1", None)
    assert (await first, await second) == (None, {"b": 2})
    assert len(calls) == 0


@testing.virtual_time
async def test_an_error_is_raised() -> None:
    calls = Calls()
    waiting = await started(calls, "1")
    error = WseError("mine", {"a": 1})
    calls.settle("1", error)
    with pytest.raises(WseError) as caught:
        await waiting
    assert caught.value is error
    assert len(calls) == 0


@testing.virtual_time
async def test_a_call_ends_after_its_timeout_and_not_before() -> None:
    calls, loop = Calls(), asyncio.get_running_loop()
    began = loop.time()
    waiting = await started(calls, "1", timeout=2.5)
    await testing.pass_time(2.4)
    assert not waiting.done()
    with pytest.raises(CallTimeout):
        await waiting
    assert loop.time() - began == pytest.approx(2.5)
    assert len(calls) == 0


@testing.virtual_time
async def test_each_call_ends_at_its_own_time_and_one_without_a_time_never() -> None:
    calls, loop = Calls(), asyncio.get_running_loop()
    ended: list[tuple[str, float]] = []

    async def wait(stamp: str, timeout: float) -> None:
        with pytest.raises(CallTimeout):
            await calls.wait(stamp, timeout)
        ended.append((stamp, loop.time() - began))

    began = loop.time()
    times = {"1": 3.0, "2": 1.0, "3": 2.0, "4": 2.0}
    for_ever = await started(calls, "5", timeout=inf)
    async with asyncio.TaskGroup() as group:
        for stamp, timeout in times.items():
            group.create_task(wait(stamp, timeout))
    assert ended == [("2", 1.0), ("3", 2.0), ("4", 2.0), ("1", 3.0)]
    calls.settle("5", "at last")
    assert await for_ever == "at last"


@testing.virtual_time
async def test_an_answer_stops_the_clock() -> None:
    calls = Calls()
    waiting = await started(calls, "1", timeout=1)
    calls.settle("1", "in time")
    assert await waiting == "in time"
    again = await started(calls, "1", timeout=100)
    await testing.pass_time(10)
    assert not again.done()
    again.cancel()


@testing.virtual_time
async def test_a_late_answer_is_dropped() -> None:
    calls = Calls()
    waiting = await started(calls, "1", timeout=1)
    await testing.pass_time(2)
    calls.settle("1", "late")
    with pytest.raises(CallTimeout):
        await waiting


@testing.virtual_time
async def test_answers_that_nobody_waits_for_are_dropped() -> None:
    calls = Calls()
    waiting = await started(calls, "1")
    calls.settle("unknown", 1)
    calls.settle("", WseError("x"))
    calls.settle("1", "first")
    calls.settle("1", "second")
    assert await waiting == "first"


@testing.virtual_time
async def test_cancelling_forgets_the_call() -> None:
    calls = Calls()
    waiting = await started(calls, "1", timeout=1)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(calls) == 0
    calls.settle("1", "late")
    await testing.pass_time(2)


@testing.virtual_time
async def test_an_answer_in_the_turn_of_the_cancellation_is_dropped() -> None:
    calls = Calls()
    waiting = await started(calls, "1")
    waiting.cancel()
    calls.settle("1", WseError("crossed"))
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert len(calls) == 0


@testing.virtual_time
async def test_all_fail_together_each_with_an_error_of_its_own() -> None:
    calls = Calls()
    waiting = [await started(calls, str(n)) for n in range(3)]
    calls.fail_all(CallDisconnected)
    assert len(calls) == 0
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(error) for error in errors] == [CallDisconnected] * 3
    assert len(set(map(id, errors))) == 3
    calls.fail_all(NoSuchClient)
