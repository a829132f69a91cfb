from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from wse import Channel
from wse.protocol import check_type


def functions(channel: Channel, type: str) -> list[Callable[..., Any]]:
    """What a message of this type would start."""
    return [handler.function for handler in channel.take(type)]


def first(conn: Any, payload: Any) -> None: ...


def second(conn: Any, payload: Any) -> None: ...


# -- on, once, off ---------------------------------------------------------------------------------


def test_handlers_are_taken_in_the_order_in_which_they_were_added() -> None:
    channel = Channel()
    assert channel.on("a", first) is first
    assert channel.once("a", second) is second
    channel.on("a", first)
    channel.on("b", second)
    assert functions(channel, "a") == [first, second, first]
    assert functions(channel, "a") == [first, first]
    assert functions(channel, "b") == [second]
    assert functions(channel, "c") == []


def test_a_handler_may_be_decorated() -> None:
    channel = Channel()

    @channel.on("a")
    def on(conn: Any, payload: Any) -> None: ...

    @channel.once("a")
    def once(conn: Any, payload: Any) -> None: ...

    @channel.on("a", ordered=True, blocking=False)
    async def ordered(conn: Any, payload: Any) -> None: ...

    assert [on, once, ordered] == functions(channel, "a")
    assert [on, ordered] == functions(channel, "a")


def test_a_handlers_manner_is_kept() -> None:
    channel = Channel()
    channel.on("a", first)
    channel.on("a", first, ordered=True)
    channel.on("a", first, blocking=True)
    plain, ordered, blocking = channel.take("a")
    assert [one.ordered for one in (plain, ordered, blocking)] == [False, True, False]
    assert [one.is_async for one in (plain, ordered, blocking)] == [False, False, True]


def test_a_handler_for_once_leaves_nothing_behind() -> None:
    channel = Channel()
    channel.once("a", first)
    assert functions(channel, "a") == [first]
    assert functions(channel, "a") == []
    assert channel._handlers == {}


def test_one_handler_is_removed() -> None:
    channel = Channel()
    for handler in (first, second, first):
        channel.on("a", handler)
    channel.on("b", first)
    channel.off("a", first)
    assert functions(channel, "a") == [second]
    assert functions(channel, "b") == [first]


def test_all_of_a_type_are_removed() -> None:
    channel = Channel()
    channel.on("a", first)
    channel.once("a", second)
    channel.on("b", first)
    channel.off("a")
    assert functions(channel, "a") == []
    assert functions(channel, "b") == [first]


def test_removing_what_is_not_there_changes_nothing() -> None:
    channel = Channel()
    channel.on("a", first)
    channel.off("a", second)
    channel.off("b")
    channel.off("b", first)
    assert functions(channel, "a") == [first]


def test_bound_methods_and_blocking_handlers_are_removed_by_what_was_registered() -> None:
    class Listener:
        def hear(self, conn: Any, payload: Any) -> None: ...

    channel, listener = Channel(), Listener()
    channel.on("a", listener.hear)
    channel.on("a", first, blocking=True)
    channel.off("a", listener.hear)
    channel.off("a", first)
    assert channel.take("a") == ()


# -- what cannot be registered ---------------------------------------------------------------------


@pytest.mark.parametrize("type", ["~wse:hi", "~wse:", "~wse:mine"])
def test_types_of_the_library_are_reserved(type: str) -> None:
    channel = Channel()
    with pytest.raises(ValueError, match="~wse: are reserved"):
        channel.on(type, first)
    with pytest.raises(ValueError, match="~wse: are reserved"):
        channel.once(type)


@pytest.mark.parametrize("type", ["", "a", "~wse", "wse:hi", " ~wse:hi", "ä", "a" * 10_000])
def test_other_types_are_the_applications(type: str) -> None:
    assert check_type(type) == type


@pytest.mark.parametrize("type", [None, 1, b"a", ["a"]])
def test_a_type_is_text(type: Any) -> None:
    with pytest.raises(TypeError, match=f"is a str, not {type.__class__.__name__}"):
        Channel().on(type, first)


def test_a_reserved_type_is_refused_before_the_function_is_known() -> None:
    with pytest.raises(ValueError, match="reserved"):
        Channel().on("~wse:hi")


def test_a_handler_takes_what_its_side_gives() -> None:
    def client_handler(payload: Any) -> None: ...

    Channel(takes=1).on("a", client_handler)
    with pytest.raises(TypeError, match="client_handler"):
        Channel().on("a", client_handler)
    with pytest.raises(TypeError, match="first"):
        Channel(takes=1).once("a", first)


def test_what_cannot_be_registered_leaves_nothing_behind() -> None:
    channel = Channel()
    with pytest.raises(TypeError):
        channel.on("a", 5)  # type: ignore[call-overload]
    assert channel.take("a") == ()


# -- include ---------------------------------------------------------------------------------------


def test_handlers_are_taken_in_whether_they_come_before_or_after() -> None:
    server, module = Channel(), Channel()
    module.on("a", first)
    server.include(module)
    module.on("a", second)
    module.on("b", second)
    assert functions(server, "a") == functions(module, "a") == [first, second]
    assert functions(server, "b") == [second]


def test_handlers_of_ones_own_and_taken_in_ones_share_a_type() -> None:
    server, module = Channel(), Channel()
    server.on("a", first)
    module.on("a", second)
    server.include(module)
    server.on("a", first)
    assert functions(server, "a") == [first, second, first]
    assert functions(module, "a") == [second]


def test_what_a_module_removes_is_removed_everywhere() -> None:
    server, module = Channel(), Channel()
    server.on("a", first)
    server.include(module)
    module.on("a", first)
    module.off("a", first)
    assert functions(server, "a") == [first]
    assert functions(module, "a") == []


def test_what_a_server_removes_stays_in_the_module() -> None:
    server, other, module = Channel(), Channel(), Channel()
    module.on("a", first)
    server.include(module)
    other.include(module)
    server.off("a", first)
    assert functions(server, "a") == []
    assert functions(other, "a") == functions(module, "a") == [first]
    module.off("a")
    assert functions(other, "a") == []


def test_a_module_in_a_module_reaches_all_whatever_came_first() -> None:
    for server_first in (True, False):
        server, module, inner = Channel(), Channel(), Channel()
        inner.on("a", first)
        if server_first:
            server.include(module)
        module.include(inner)
        if not server_first:
            server.include(module)
        inner.on("a", second)
        assert functions(server, "a") == [first, second]
        inner.off("a", first)
        assert functions(server, "a") == [second]


def test_a_handler_that_comes_by_several_ways_is_taken_once() -> None:
    server, left, right, inner = Channel(), Channel(), Channel(), Channel()
    inner.on("a", first)
    for module in (left, right):
        module.include(inner)
        server.include(module)
    server.include(inner)
    server.include(inner)
    inner.on("a", second)
    assert functions(server, "a") == [first, second]
    inner.off("a")
    assert functions(server, "a") == []


def test_channels_that_take_in_each_other_share_their_handlers() -> None:
    one, other = Channel(), Channel()
    one.include(other)
    other.include(one)
    one.on("a", first)
    other.on("a", second)
    assert functions(one, "a") == functions(other, "a") == [first, second]
    one.off("a", second)
    other.off("a", first)
    assert functions(one, "a") == functions(other, "a") == []


def test_once_is_once_for_all_who_took_it_in() -> None:
    server, other, module = Channel(), Channel(), Channel()
    server.include(module)
    other.include(module)
    module.once("a", first)
    assert functions(server, "a") == [first]
    assert functions(server, "a") == functions(other, "a") == functions(module, "a") == []


def test_handlers_of_the_other_side_are_not_taken_in() -> None:
    server, module = Channel(), Channel(takes=1)
    with pytest.raises(TypeError, match=r"\(conn, payload\), those of a client \(payload\)"):
        server.include(module)
    module.on("a", print)
    assert functions(server, "a") == []


def test_a_channel_does_not_keep_those_alive_that_include_it() -> None:
    module = Channel()
    including = Channel()
    including.include(module)
    gone = weakref.ref(including)
    del including
    gc.collect()
    assert gone() is None
    assert list(module._including) == []


def test_a_channel_in_between_stays_for_what_is_added_later() -> None:
    module, server = Channel(), Channel()

    def include_by_another() -> None:
        between = Channel()
        between.include(module)
        server.include(between)

    include_by_another()
    gc.collect()
    module.on("late", first)
    assert functions(server, "late") == [first]
