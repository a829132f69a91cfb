from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from support import SECRET

from wse import Limits, testing
from wse.signals import Emitter, Signal

logger = logging.getLogger("test.signals")


def emitter() -> Emitter:
    return Emitter(logger, Limits())


def signal(*, remembered: bool = False) -> Signal[[int]]:
    return Signal(emitter(), "one", "(number)", remembered=remembered)


class Listener:
    """Two handlers that are bound methods."""

    def __init__(self) -> None:
        self.heard: list[int] = []

    def hear(self, n: int) -> None:
        self.heard.append(n)

    __hash__ = None  # type: ignore[assignment]


# -- on, once, off ---------------------------------------------------------------------------------


def test_handlers_are_called_in_the_order_in_which_they_were_added() -> None:
    one, heard = signal(), list[tuple[str, int]]()
    one(lambda n: heard.append(("a", n)))
    one.once(lambda n: heard.append(("b", n)))
    one(lambda n: heard.append(("c", n)))
    one.emit(1)
    one.emit(2)
    assert heard == [("a", 1), ("b", 1), ("c", 1), ("a", 2), ("c", 2)]


def test_a_handler_may_be_decorated_or_given() -> None:
    one, heard = signal(), list[int]()

    @one
    def decorated(n: int) -> None:
        heard.append(n)

    @one.once
    def decorated_once(n: int) -> None:
        heard.append(-n)

    def given(n: int) -> None:
        heard.append(n * 10)

    assert one(given) is given
    assert callable(decorated)
    assert callable(decorated_once)
    one.emit(1)
    assert heard == [1, -1, 10]


def test_nobody_need_listen() -> None:
    one = signal()
    one.emit(1)
    heard: list[int] = []
    one(heard.append)
    one.emit(2)
    assert heard == [2]


def test_a_handler_that_is_removed_hears_nothing_more() -> None:
    one, listener = signal(), Listener()
    one(listener.hear)
    one.emit(1)
    one.off(listener.hear)
    one.emit(2)
    assert listener.heard == [1]


def test_a_handler_added_twice_is_called_twice_and_removed_whole() -> None:
    one, heard = signal(), list[int]()
    one(heard.append)
    one(heard.append)
    one.emit(1)
    one.off(heard.append)
    one.emit(2)
    assert heard == [1, 1]


def test_a_handler_for_once_that_is_removed_before_is_never_called() -> None:
    one, listener = signal(), Listener()
    one.once(listener.hear)
    one.off(listener.hear)
    one.emit(1)
    assert listener.heard == []


def test_removing_what_is_not_there_changes_nothing() -> None:
    one, heard = signal(), list[int]()
    one(heard.append)
    one.off(print)
    one.emit(1)
    assert heard == [1]


def test_once_does_not_end_what_was_added_for_good() -> None:
    one, listener = signal(), Listener()
    one(listener.hear)
    one.once(listener.hear)
    one.emit(1)
    one.emit(2)
    assert listener.heard == [1, 1, 2]


def test_a_handler_for_once_is_called_once_though_it_causes_the_event_again() -> None:
    one, heard = signal(), list[int]()

    @one.once
    def again(n: int) -> None:
        heard.append(n)
        if n < 5:
            one.emit(n + 1)

    one.emit(1)
    assert heard == [1]


def test_a_handler_may_remove_itself() -> None:
    one, heard = signal(), list[int]()

    @one
    def leaving(n: int) -> None:
        heard.append(n)
        one.off(leaving)

    one.emit(1)
    one.emit(2)
    assert heard == [1]


def test_a_signal_tells_its_name() -> None:
    assert repr(signal()) == "<Signal one>"


# -- order of events -------------------------------------------------------------------------------


def test_everybody_sees_the_same_order_when_a_handler_causes_an_event() -> None:
    both = emitter()
    first: Signal[[str]] = Signal(both, "first", "(text)")
    second: Signal[[str]] = Signal(both, "second", "(text)")
    heard: list[str] = []

    @first
    def causes(text: str) -> None:
        heard.append(f"a {text}")
        second.emit("nested")
        heard.append("still a")

    first(lambda text: heard.append(f"b {text}"))
    second(lambda text: heard.append(f"c {text}"))
    second(lambda text: heard.append(f"d {text}"))
    first.emit("outer")
    assert heard == ["a outer", "still a", "b outer", "c nested", "d nested"]


def test_events_that_are_caused_deeply_are_told_one_after_the_other() -> None:
    one, heard = signal(), list[int]()

    @one
    def again(n: int) -> None:
        heard.append(n)
        if n < 5000:
            one.emit(n + 1)

    one.emit(0)
    assert heard == list(range(5001))


def test_who_listens_is_decided_when_it_happens() -> None:
    one, heard = signal(), list[str]()

    @one
    def adds(n: int) -> None:
        one(lambda m: heard.append(f"late {m}"))
        heard.append(f"first {n}")

    one.emit(1)
    assert heard == ["first 1"]


# -- remembered ------------------------------------------------------------------------------------


def test_a_later_handler_is_told_the_last_event() -> None:
    one, heard = signal(remembered=True), list[int]()
    one.emit(1)
    one.emit(2)
    one(heard.append)
    assert heard == [2]
    one.emit(3)
    assert heard == [2, 3]


def test_a_later_handler_for_once_is_told_the_last_event_only() -> None:
    one, heard = signal(remembered=True), list[int]()
    one.emit(1)
    one.once(heard.append)
    one.emit(2)
    assert heard == [1]


def test_nothing_is_told_before_the_first_event() -> None:
    one, heard = signal(remembered=True), list[int]()
    one(heard.append)
    one.once(heard.append)
    assert heard == []
    one.emit(1)
    one.emit(2)
    assert heard == [1, 1, 2]


def test_an_event_is_remembered_though_nobody_listened_and_though_it_says_nothing() -> None:
    silent: Signal[[]] = Signal(emitter(), "silent", "()", remembered=True)
    heard: list[str] = []
    silent.emit()
    silent(lambda: heard.append("told"))
    assert heard == ["told"]


def test_others_forget() -> None:
    one, heard = signal(), list[int]()
    one.emit(1)
    one(heard.append)
    assert heard == []


def test_a_handler_added_by_a_handler_is_told_once() -> None:
    one, heard = signal(remembered=True), list[int]()

    @one
    def adds(n: int) -> None:
        if n == 1:
            one(heard.append)

    one.emit(1)
    assert heard == [1]
    one.emit(2)
    assert heard == [1, 2]


# -- what handlers raise ---------------------------------------------------------------------------


def test_what_a_handler_raises_breaks_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    one, heard = signal(), list[int]()
    failed: list[tuple[str, BaseException]] = []
    one._emitter.failed = lambda name, error: failed.append((name, error))
    boom = ZeroDivisionError(SECRET)

    @one
    def raises(_: int) -> None:
        raise boom

    one(heard.append)
    one.emit(1)
    one.emit(2)
    assert heard == [1, 2]
    assert failed == [("one", boom), ("one", boom)]
    assert [record.exc_info and record.exc_info[1] for record in caplog.records] == [boom, boom]
    assert caplog.records[0].levelno == logging.ERROR
    assert "one" in caplog.records[0].getMessage()


def test_what_a_handler_raises_without_anybody_to_tell_is_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = signal()
    one(lambda n: 1 // n)
    one.emit(0)
    assert len(caplog.records) == 1


def test_error_handlers_that_raise_do_not_loop(caplog: pytest.LogCaptureFixture) -> None:
    both = emitter()
    one: Signal[[int]] = Signal(both, "one", "(text)")
    error: Signal[[BaseException]] = Signal(both, "error", "(text)")
    both.failed = lambda _, raised: error.emit(raised)
    told: list[BaseException] = []

    @error
    def raises(raised: BaseException) -> None:
        told.append(raised)
        raise RuntimeError(SECRET)

    one(lambda n: 1 // n)
    one.emit(0)
    assert [type(raised) for raised in told] == [ZeroDivisionError]
    assert len(caplog.records) == 2


@testing.virtual_time
async def test_async_error_handlers_that_raise_do_not_loop() -> None:
    both = emitter()
    error: Signal[[BaseException]] = Signal(both, "error", "(text)")
    both.failed = lambda _, raised: error.emit(raised)
    told: list[BaseException] = []

    @error
    async def raises(raised: BaseException) -> None:
        told.append(raised)
        await asyncio.sleep(1)
        raise RuntimeError(SECRET)

    error.emit(ValueError("first"))
    await testing.pass_time(10)
    assert [type(raised) for raised in told] == [ValueError]
    assert not both.tasks


# -- async handlers --------------------------------------------------------------------------------


@testing.virtual_time
async def test_an_async_handler_runs_as_a_task_that_is_held_until_its_end() -> None:
    one, heard = signal(), list[str]()

    @one
    async def slow(n: int) -> None:
        heard.append(f"began {n}")
        await asyncio.sleep(n)
        heard.append(f"ended {n}")

    one(lambda n: heard.append(f"plain {n}"))
    one.emit(2)
    one.emit(1)
    await testing.settle()
    assert len(one._emitter.tasks) == 2
    await testing.pass_time(5)
    assert not one._emitter.tasks
    assert sorted(heard[:4]) == ["began 1", "began 2", "plain 1", "plain 2"]
    assert heard[4:] == ["ended 1", "ended 2"]


@testing.virtual_time
async def test_an_async_handler_that_never_waits_ends() -> None:
    one, heard = signal(), list[int]()

    @one
    async def quick(n: int) -> None:
        heard.append(n)

    one.emit(1)
    await testing.settle()
    assert heard == [1]
    assert not one._emitter.tasks


@testing.virtual_time
async def test_a_lambda_may_return_a_coroutine() -> None:
    one, heard = signal(), list[int]()

    async def later(n: int) -> None:
        await asyncio.sleep(1)
        heard.append(n)

    one(lambda n: later(n + 1))
    one.emit(1)
    await testing.pass_time(2)
    assert heard == [2]


@testing.virtual_time
async def test_what_an_async_handler_raises_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    one = signal()
    failed: list[tuple[str, BaseException]] = []
    one._emitter.failed = lambda name, error: failed.append((name, error))
    boom = ZeroDivisionError(SECRET)

    @one
    async def raises(_: int) -> None:
        await asyncio.sleep(1)
        raise boom

    one.emit(1)
    await testing.pass_time(2)
    assert failed == [("one", boom)]
    assert len(caplog.records) == 1


# -- together --------------------------------------------------------------------------------------


def test_what_is_emitted_together_is_told_at_the_end_in_order() -> None:
    both = emitter()
    first: Signal[[str]] = Signal(both, "first", "(text)")
    second: Signal[[str]] = Signal(both, "second", "(text)")
    heard: list[str] = []

    @first
    def causes(text: str) -> None:
        heard.append(f"first {text}")
        second.emit("caused")

    second(lambda text: heard.append(f"second {text}"))
    with both.together():
        first.emit("a")
        with both.together():
            second.emit("b")
        heard.append("still quiet")
    assert heard == ["still quiet", "first a", "second b", "second caused"]


def test_what_is_emitted_together_by_a_handler_follows_the_event_at_hand() -> None:
    one, heard = signal(), list[str]()

    @one
    def causes(n: int) -> None:
        if n == 1:
            with one._emitter.together():
                one.emit(2)
        heard.append(f"a {n}")

    one(lambda n: heard.append(f"b {n}"))
    one.emit(1)
    assert heard == ["a 1", "b 1", "a 2", "b 2"]


# -- bounds ----------------------------------------------------------------------------------------


class Crowd:
    """A signal that peers can cause, and an async handler of it that stays at work."""

    def __init__(self, **limits: int) -> None:
        self.emitter = Emitter(logger, Limits(**limits))
        self.ignored: Signal[[str, int]] = Signal(
            self.emitter, "ignored", "(peer, number)", peer_of=lambda peer, _: peer
        )
        self.ignored(self._stay)
        self.at_work: list[tuple[str, int]] = []

    async def _stay(self, peer: str, number: int) -> None:
        self.at_work.append((peer, number))
        await asyncio.sleep(10)

    async def emit(self, peer: str, times: int) -> int:
        """How many handlers have started of so many."""
        before = len(self.at_work)
        for number in range(times):
            self.ignored.emit(peer, number)
        await testing.settle()
        return len(self.at_work) - before


@testing.virtual_time
async def test_async_handlers_of_what_one_peer_causes_are_bounded(
    caplog: pytest.LogCaptureFixture,
) -> None:
    crowd = Crowd(max_handlers=3)
    assert await crowd.emit("evil", 50) == 3
    assert await crowd.emit("honest", 1) == 1
    assert [record.getMessage() for record in caplog.records] == [
        "too many handlers of ignored at work, some are left out"
    ]
    await testing.pass_time(11)
    assert crowd.emitter.tasks == set()
    assert await crowd.emit("evil", 50) == 3
    assert len(caplog.records) == 2
    await testing.pass_time(11)


@testing.virtual_time
async def test_those_of_what_all_peers_cause_are_bounded_and_no_others_count() -> None:
    crowd = Crowd(max_event_handlers=5)
    joined: Signal[[str, int]] = Signal(crowd.emitter, "joined", "(peer, number)")
    joined(crowd._stay)
    for number in range(100):
        joined.emit("anybody", number)
    await testing.settle()
    assert len(crowd.at_work) == 100
    started = [await crowd.emit(str(peer), 2) for peer in range(4)]
    assert started == [2, 2, 1, 0]
    joined.emit("anybody", 100)
    await testing.settle()
    assert crowd.at_work[-1] == ("anybody", 100)
    await testing.pass_time(11)


@pytest.mark.parametrize("handler", [lambda: None, lambda *, number: number, "no function"])
def test_a_handler_that_cannot_take_the_event_is_refused(handler: Any) -> None:
    one = signal()
    with pytest.raises(TypeError, match=r"\(number\)|callable"):
        one(handler)
    with pytest.raises(TypeError, match=r"\(number\)|callable"):
        one.once(handler)


def test_a_handler_that_raises_cancelled_error_breaks_nothing() -> None:
    both, failed = emitter(), list[BaseException]()
    both.failed = lambda _, error: failed.append(error)
    one: Signal[[int]] = Signal(both, "one", "(number)")
    heard: list[int] = []

    @one
    def cancelled(_: int) -> None:
        raise asyncio.CancelledError(SECRET)

    one(heard.append)
    one.emit(1)
    assert heard == [1]
    assert [type(error) for error in failed] == [asyncio.CancelledError]
