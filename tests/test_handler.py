from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

import msgspec
import pytest

from wse import InvalidPayload, Protocol, WseJSON, testing
from wse.handler import EAGER, Handler, end_tasks, start_task

if TYPE_CHECKING:
    from decimal import Decimal

JSON = WseJSON()


class AddArgs(msgspec.Struct):
    a: int
    b: int


@dataclass
class Point:
    x: int
    y: int = 0


class Box(TypedDict):
    low: int
    high: int


class Pair(NamedTuple):
    one: int
    two: str


class Cat(msgspec.Struct, tag=True):
    lives: int


class Dog(msgspec.Struct, tag=True):
    name: str


class Plain(Protocol):
    """Hands plain data to `decoder`."""

    name = "plain"

    def pack(self, type: str, payload: Any, stamp: Any) -> bytes:
        raise NotImplementedError

    def unpack(self, data: bytes) -> tuple[Any, Any, Any]:
        raise NotImplementedError


PLAIN = Plain()


def annotated(kind: Any) -> Handler:
    """A handler whose payload has this annotation, not as a string."""

    def handler(conn: Any, payload: Any) -> None: ...

    handler.__annotations__["payload"] = kind
    return Handler(handler, 2)


def decoded(handler: Handler, payload: Any) -> Any:
    """The payload as the handler gets it, the same over both kinds of protocol."""
    value = handler.decode(msgspec.Raw(msgspec.json.encode(payload)), JSON)
    assert handler.decode(payload, PLAIN) == value
    return value


# -- what the payload is decoded into --------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "payload", "value"),
    [
        (AddArgs, {"a": 5, "b": 3}, AddArgs(5, 3)),
        (AddArgs, {"a": 5, "b": 3, "more": 1}, AddArgs(5, 3)),
        (Point, {"x": 1}, Point(1, 0)),
        (Box, {"low": 1, "high": 2}, {"low": 1, "high": 2}),
        (Pair, [1, "a"], Pair(1, "a")),
        (list[int], [1, 2], [1, 2]),
        (dict[str, float], {"a": 1.5}, {"a": 1.5}),
        (int | str, "a", "a"),
        (int | None, None, None),
        (AddArgs | None, {"a": 1, "b": 2}, AddArgs(1, 2)),
        (Cat | Dog, {"type": "Dog", "name": "Rex"}, Dog("Rex")),
        (Literal["up", "down"], "up", "up"),
        (None, None, None),
        (bool, False, False),
        (Any, {"a": [0, "", None]}, {"a": [0, "", None]}),
        (object, {"a": 1}, {"a": 1}),
    ],
)
def test_a_payload_becomes_what_is_asked_for(kind: Any, payload: Any, value: Any) -> None:
    result = decoded(annotated(kind), payload)
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("kind", "payload", "path"),
    [
        (AddArgs, {"a": 5, "b": "3"}, "$.b"),
        (AddArgs, {"a": 5}, "$.b"),
        (Point, {"x": None}, "$.x"),
        (Box, {"low": 1}, "$.high"),
        (Pair, [1, 2], "$[1]"),
        (list[int], [1, 2, 3.5], "$[2]"),
        (int | str, [], "$"),
        (Cat | Dog, {"type": "Fish"}, "$.type"),
        (Literal["up", "down"], "left", "$"),
        (None, 0, "$"),
        (bool, 0, "$"),
        (int, True, "$"),
        (str, None, "$"),
    ],
)
def test_a_payload_that_does_not_fit(kind: Any, payload: Any, path: str) -> None:
    handler = annotated(kind)
    with pytest.raises(InvalidPayload) as caught:
        handler.decode(msgspec.Raw(msgspec.json.encode(payload)), JSON)
    assert caught.value.details == {"path": path}
    with pytest.raises(InvalidPayload) as caught:
        handler.decode(payload, PLAIN)
    assert caught.value.details == {"path": path}


@pytest.mark.parametrize("payload", [0, "", None, [], {"a": [1.5, None, True]}])
def test_without_an_annotation_a_payload_is_plain_data(payload: Any) -> None:
    handler = Handler(lambda conn, payload: None, 2)  # noqa: ARG005
    assert handler.kind is Any
    assert decoded(handler, payload) == payload


def test_a_decoder_is_made_once_for_each_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    def decoder(kind: Any) -> Callable[[Any], Any]:
        made.append(kind)
        return lambda payload: payload

    handler, protocol = annotated(int), Plain()
    monkeypatch.setattr(protocol, "decoder", decoder)
    assert [handler.decode(n, protocol) for n in range(3)] == [0, 1, 2]
    assert made == [int]
    assert handler.decode(1, PLAIN) == 1


# -- which annotation ------------------------------------------------------------------------------


def kind(function: Callable[..., Any], takes: int = 2) -> Any:
    return Handler(function, takes).kind


def test_the_annotation_of_the_last_argument_counts() -> None:
    def server(conn: str, payload: AddArgs) -> None: ...
    def client(payload: AddArgs) -> None: ...
    def defaults(conn: str, payload: AddArgs, more: int = 0, *, other: str = "") -> None: ...
    def positional(conn: str, payload: AddArgs, /) -> None: ...
    def rest(conn: str, payload: AddArgs, *more: int, **others: int) -> None: ...

    assert kind(client, 1) is AddArgs
    assert [kind(one) for one in (server, defaults, positional, rest)] == [AddArgs] * 4


def test_a_function_that_takes_anything() -> None:
    def anything(*args: AddArgs, **others: str) -> None: ...
    def conn_and_more(conn: str, *args: AddArgs, **others: str) -> None: ...
    def untyped(*args, **others) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN002, ANN003

    assert kind(anything, 1) is kind(anything) is kind(conn_and_more) is AddArgs
    assert kind(untyped) is Any


def test_the_annotation_of_the_connection_need_not_be_known() -> None:
    def handler(conn: Decimal, payload: AddArgs) -> None: ...

    assert kind(handler) is AddArgs


def test_annotations_that_are_no_strings() -> None:
    assert annotated(list[int]).kind == list[int]
    assert annotated(None).kind is None


def test_annotations_written_as_strings_and_in_strings() -> None:
    def strings(conn: Any, payload: list[int] | None) -> None: ...

    def quoted(conn: Any, payload: Any) -> None: ...

    quoted.__annotations__["payload"] = "dict[str, AddArgs]"
    assert kind(strings) == list[int] | None
    assert kind(quoted) == dict[str, AddArgs]


def test_annotations_of_a_function_in_a_function() -> None:
    class Local(msgspec.Struct):
        n: int

    def handler(conn: Any, payload: Local) -> Any:
        return Local, conn, payload, later

    assert kind(handler) is Local  # though `later` is not bound yet
    later = 1


def test_methods_partials_and_callable_objects() -> None:
    class Part:
        def method(self, conn: Any, payload: AddArgs) -> None: ...

        @classmethod
        def of_class(cls, conn: Any, payload: AddArgs) -> None: ...

        @staticmethod
        def static(conn: Any, payload: AddArgs) -> None: ...

        def with_more(self, more: int, conn: Any, payload: AddArgs) -> None: ...

        def __call__(self, conn: Any, payload: AddArgs) -> None: ...

    def function(more: int, conn: Any, payload: AddArgs) -> None: ...

    part = Part()
    functions: list[Callable[..., Any]] = [
        part,
        part.method,
        part.of_class,
        Part.of_class,
        part.static,
        Part.static,
        functools.partial(part.with_more, 1),
        functools.partial(function, 1),
        functools.partial(functools.partial(function), 1),
        functools.partial(part),
        functools.partial(function, more=1),
    ]
    assert [kind(one) for one in functions[:-1]] == [AddArgs] * (len(functions) - 1)
    with pytest.raises(TypeError):
        kind(functions[-1])


def test_a_decorated_function_keeps_its_annotation() -> None:
    def logged(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    class Part:
        @logged
        def method(self, conn: Any, payload: AddArgs) -> None: ...

    @logged
    @logged
    def function(conn: Any, payload: AddArgs) -> None: ...

    assert kind(function) is kind(Part().method) is AddArgs


def test_an_annotation_that_is_unknown() -> None:
    def handler(conn: Any, payload: Decimal) -> None: ...

    with pytest.raises(TypeError, match=r"'Decimal' of .*handler is unknown") as caught:
        kind(handler)
    assert isinstance(caught.value.__cause__, NameError)


def test_an_annotation_that_is_no_expression() -> None:
    def handler(conn: Any, payload: Any) -> None: ...

    handler.__annotations__["payload"] = "no type"
    with pytest.raises(TypeError, match=r"'no type' of .*handler is unknown"):
        kind(handler)


# -- what cannot take the arguments ----------------------------------------------------------------


def none() -> None: ...
def one(payload: Any) -> None: ...
def two(conn: Any, payload: Any) -> None: ...
def three(conn: Any, payload: Any, more: Any) -> None: ...
def keyword(conn: Any, payload: Any, *, needed: Any) -> None: ...
def named(*, conn: Any, payload: Any) -> None: ...
async def coroutine(payload: Any) -> None: ...


@pytest.mark.parametrize("function", [none, one, three, keyword, named, coroutine])
def test_a_handler_of_a_server_takes_two(function: Callable[..., Any]) -> None:
    with pytest.raises(
        TypeError,
        match=rf"{function.__name__}\(.*\) .*must take 2 positional arguments: \(conn, payload\)",
    ):
        Handler(function, 2)


@pytest.mark.parametrize("function", [none, two, three, keyword, named])
def test_a_handler_of_a_client_takes_one(function: Callable[..., Any]) -> None:
    with pytest.raises(
        TypeError,
        match=rf"{function.__name__}\(.*\) .*must take 1 positional argument: \(payload\)",
    ):
        Handler(function, 1)


@pytest.mark.parametrize("nothing", [None, 5, "text", object()])
def test_a_handler_can_be_called(nothing: Any) -> None:
    with pytest.raises(TypeError, match="not a callable"):
        Handler(nothing, 2)


def test_a_function_that_tells_nothing_of_its_arguments() -> None:
    with pytest.raises(TypeError, match="max"):
        Handler(max, 2)


# -- async or not ----------------------------------------------------------------------------------


class AsyncCallable:
    async def __call__(self, conn: Any, payload: Any) -> None: ...

    async def method(self, conn: Any, payload: Any) -> None: ...


async def async_two(conn: Any, payload: Any) -> None: ...


@functools.wraps(two)
async def async_wrapper(*args: Any) -> None: ...


@functools.wraps(async_two)
def plain_wrapper(*args: Any) -> Any:
    return async_two(*args)


ASYNC: list[Callable[..., Any]] = [
    async_two,
    AsyncCallable(),
    AsyncCallable().method,
    functools.partial(async_two),
    async_wrapper,
]


def test_a_plain_wrapper_of_an_async_function_is_plain_and_must_not_block() -> None:
    assert not Handler(plain_wrapper, 2).is_async
    with pytest.raises(TypeError, match="cannot be blocking"):
        Handler(plain_wrapper, 2, blocking=True)


@pytest.mark.parametrize("function", ASYNC)
def test_async_functions(function: Callable[..., Any]) -> None:
    handler = Handler(function, 2)
    assert handler.is_async
    assert handler.function is function
    with pytest.raises(TypeError, match="cannot be blocking"):
        Handler(function, 2, blocking=True)


@pytest.mark.parametrize("function", [two, functools.partial(two), print])
def test_plain_functions(function: Callable[..., Any]) -> None:
    handler = Handler(function, 2)
    assert not handler.is_async
    assert handler.function is function


@testing.virtual_time
async def test_a_blocking_function_runs_in_a_thread() -> None:
    def blocking(conn: int, payload: int) -> tuple[int, bool]:
        return conn + payload, threading.current_thread() is threading.main_thread()

    handler = Handler(blocking, 2, blocking=True)
    assert handler.is_async
    assert handler.kind is int
    assert await handler.function(1, 2) == (3, False)


@testing.virtual_time
async def test_what_a_blocking_function_raises_is_raised() -> None:
    handler = Handler(lambda conn, payload: conn / payload, 2, blocking=True)
    with pytest.raises(ZeroDivisionError):
        await handler.function(1, 0)


@pytest.mark.parametrize("ordered", [True, False])
def test_its_manner(*, ordered: bool) -> None:
    assert Handler(two, 2, ordered=ordered).ordered is ordered


# -- tasks -----------------------------------------------------------------------------------------


@testing.virtual_time
async def test_a_task_starts_at_once_where_python_can() -> None:
    steps: list[str] = []

    async def work() -> str:
        steps.append("began")
        assert asyncio.current_task() is not None
        async with asyncio.timeout(5):
            await asyncio.sleep(1)
        return "done"

    task = start_task(asyncio.get_running_loop(), work())
    assert steps == (["began"] if EAGER else [])
    assert not task.done()
    assert await task == "done"


@testing.virtual_time
async def test_a_task_that_never_waits_may_be_done_at_once() -> None:
    async def work() -> int:
        return 1

    task = start_task(asyncio.get_running_loop(), work())
    assert task.done() is EAGER
    assert await task == 1


@testing.virtual_time
async def test_ending_tasks_waits_and_then_cancels_but_for_who_asks() -> None:
    loop = asyncio.get_running_loop()
    ended: list[tuple[str, float]] = []

    async def work(name: str, seconds: float) -> None:
        try:
            await asyncio.sleep(seconds)
            ended.append((name, loop.time()))
        except asyncio.CancelledError:
            ended.append((f"{name} cancelled", loop.time()))
            raise

    tasks = {start_task(loop, work("quick", 1)), start_task(loop, work("slow", 100))}
    asking = asyncio.current_task()
    assert asking is not None
    began = loop.time()
    await end_tasks(tasks | {asking}, 5)
    assert [(name, round(time - began)) for name, time in ended] == [
        ("quick", 1),
        ("slow cancelled", 5),
    ]
    assert not asking.cancelling()


@testing.virtual_time
async def test_ending_no_tasks_takes_no_time() -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    await end_tasks(set(), 5)
    await end_tasks({asyncio.create_task(asyncio.sleep(0))}, 5)
    assert loop.time() == began


@testing.virtual_time
async def test_a_task_that_will_not_end_is_given_up() -> None:
    loop = asyncio.get_running_loop()

    async def stubborn() -> None:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            await asyncio.sleep(100)

    task = start_task(loop, stubborn())
    began = loop.time()
    await end_tasks({task}, 5)
    assert loop.time() - began == pytest.approx(10)
    assert not task.done()
    await task
