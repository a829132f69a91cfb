from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from wse import AlreadyRegistered, Procedures


def function(procedures: Procedures, name: str) -> Callable[..., Any] | None:
    """What a call of this name would start."""
    handler = procedures.get(name)
    return None if handler is None else handler.function


def first(conn: Any, payload: Any) -> None: ...


def second(conn: Any, payload: Any) -> None: ...


# -- register and unregister -----------------------------------------------------------------------


def test_a_procedure_may_be_given_or_decorated() -> None:
    procedures = Procedures()
    assert procedures.register("a", first) is first

    @procedures.register("b")
    def decorated(conn: Any, payload: Any) -> None: ...

    @procedures.register("c", ordered=True)
    async def ordered(conn: Any, payload: Any) -> None: ...

    assert function(procedures, "a") is first
    assert function(procedures, "b") is decorated
    assert function(procedures, "c") is ordered
    assert function(procedures, "d") is None


def test_a_procedures_manner_is_kept() -> None:
    procedures = Procedures()
    procedures.register("plain", first)
    procedures.register("ordered", first, ordered=True)
    procedures.register("blocking", first, blocking=True)
    manners = {
        name: (handler.ordered, handler.is_async) for name, handler in procedures._handlers.items()
    }
    assert manners == {
        "plain": (False, False),
        "ordered": (True, False),
        "blocking": (False, True),
    }


@pytest.mark.parametrize("again", [first, second])
def test_a_name_is_registered_once(again: Callable[..., Any]) -> None:
    procedures = Procedures()
    procedures.register("a", first)
    with pytest.raises(AlreadyRegistered) as caught:
        procedures.register("a", again)
    assert caught.value.code == "wse.server.rp.already-registered"
    assert caught.value.details == {"name": "a"}
    assert function(procedures, "a") is first


def test_one_function_may_have_two_names() -> None:
    procedures = Procedures()
    procedures.register("a", first)
    procedures.register("b", first)
    procedures.unregister("a")
    assert function(procedures, "b") is first


def test_a_name_is_free_again_once_unregistered() -> None:
    procedures = Procedures()
    procedures.register("a", first)
    procedures.unregister("a")
    assert function(procedures, "a") is None
    procedures.register("a", second)
    assert function(procedures, "a") is second


def test_unregistering_what_is_not_there_changes_nothing() -> None:
    procedures = Procedures()
    procedures.register("a", first)
    procedures.unregister("b")
    assert function(procedures, "a") is first


def test_names_of_the_library_are_reserved() -> None:
    with pytest.raises(ValueError, match="reserved"):
        Procedures().register("~wse:hi", first)
    with pytest.raises(ValueError, match="reserved"):
        Procedures().register("~wse:mine")


def test_a_name_is_text() -> None:
    with pytest.raises(TypeError, match="not int"):
        Procedures().register(5, first)  # type: ignore[call-overload]


def test_a_procedure_takes_what_its_side_gives() -> None:
    procedures = Procedures(takes=1)
    with pytest.raises(TypeError, match="first"):
        procedures.register("a", first)
    assert procedures.get("a") is None
    procedures.register("a", print)
    assert function(procedures, "a") is print


# -- include ---------------------------------------------------------------------------------------


def test_procedures_are_taken_in_whether_they_come_before_or_after() -> None:
    server, module = Procedures(), Procedures()
    module.register("a", first)
    server.include(module)
    module.register("b", second)
    assert function(server, "a") is first
    assert function(server, "b") is second
    module.unregister("a")
    module.unregister("b")
    assert function(server, "a") is function(server, "b") is None


def test_a_module_in_a_module_reaches_all_whatever_came_first() -> None:
    for server_first in (True, False):
        server, module, inner = Procedures(), Procedures(), Procedures()
        inner.register("a", first)
        if server_first:
            server.include(module)
        module.include(inner)
        if not server_first:
            server.include(module)
        inner.register("b", second)
        assert function(server, "a") is first
        assert function(server, "b") is second
        inner.unregister("a")
        assert function(server, "a") is None


def test_a_name_that_is_taken_is_not_taken_in_and_nothing_else_is() -> None:
    server, module = Procedures(), Procedures()
    server.register("a", first)
    module.register("b", second)
    module.register("a", second)
    with pytest.raises(AlreadyRegistered):
        server.include(module)
    assert function(server, "a") is first
    assert function(server, "b") is None
    module.register("c", second)
    assert function(server, "c") is None


def test_a_name_that_is_taken_further_up_is_not_taken_in() -> None:
    server, module, inner = Procedures(), Procedures(), Procedures()
    server.register("a", first)
    server.include(module)
    inner.register("a", second)
    with pytest.raises(AlreadyRegistered):
        module.include(inner)
    assert function(server, "a") is first
    assert function(module, "a") is None


def test_a_name_that_a_server_has_is_not_registered_in_its_modules() -> None:
    server, module = Procedures(), Procedures()
    server.include(module)
    server.register("a", first)
    with pytest.raises(AlreadyRegistered):
        module.register("a", second)
    assert function(server, "a") is first
    assert function(module, "a") is None


def test_procedures_are_taken_in_once() -> None:
    server, module = Procedures(), Procedures()
    module.register("a", first)
    server.include(module)
    with pytest.raises(AlreadyRegistered):
        server.include(module)
    assert function(server, "a") is first


def test_a_module_may_serve_two_servers() -> None:
    server, other, module = Procedures(), Procedures(), Procedures()
    server.include(module)
    other.include(module)
    module.register("a", first)
    server.unregister("a")
    assert function(server, "a") is None
    assert function(other, "a") is function(module, "a") is first


def test_a_module_takes_back_only_what_it_gave() -> None:
    server, module = Procedures(), Procedures()
    module.register("a", first)
    server.include(module)
    server.unregister("a")
    server.register("a", second)
    module.unregister("a")
    assert function(server, "a") is second
    assert function(module, "a") is None


def test_procedures_of_the_other_side_are_not_taken_in() -> None:
    server, module = Procedures(), Procedures(takes=1)
    with pytest.raises(TypeError, match=r"\(conn, payload\), those of a client \(payload\)"):
        server.include(module)
    module.register("a", print)
    assert server.get("a") is None
