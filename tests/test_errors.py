from __future__ import annotations

import builtins
import copy
import inspect
import pickle
import re

import pytest

from wse import ErrorCode, errors
from wse.errors import (
    CallDisconnected,
    CallError,
    CallFailed,
    CallNotRegistered,
    CallTimeout,
    ConnectionFailed,
    HandlerFailed,
    InvalidPayload,
    MessageUnreadable,
    NotConnected,
    UsageError,
    WseError,
    error_of,
)

GROUPS = {"CallError", "ConnectError", "UsageError", "PeerError"}
CLASSES: dict[str, type[WseError]] = {
    name: one
    for name, one in vars(errors).items()
    if inspect.isclass(one) and issubclass(one, WseError) and not name.startswith("_")
}
CODED = {name: one for name, one in CLASSES.items() if name not in GROUPS | {"WseError"}}


def drawn_tree() -> dict[str, str]:
    """Each class of the docstring's drawing, and its parent there."""
    assert errors.__doc__ is not None
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in errors.__doc__.splitlines():
        match = re.fullmatch(r" {4}([│├└─ ]*)(\w+)", line)
        if match:
            depth = len(match[1]) // 4
            path[depth:] = [match[2]]
            parents[match[2]] = path[depth - 1] if depth else "Exception"
    return parents


def real_parent(one: type[WseError]) -> str:
    public = (base for base in one.__mro__[1:] if not base.__name__.startswith("_"))
    return next(public).__name__


def test_the_tree_is_as_drawn() -> None:
    assert drawn_tree() == {name: real_parent(one) for name, one in CLASSES.items()}


def test_the_module_offers_the_whole_tree() -> None:
    assert sorted(CLASSES) == sorted(name for name in errors.__all__ if name[0].isupper())


def test_no_builtin_is_shadowed() -> None:
    assert not set(CLASSES) & set(vars(builtins))


def test_each_code_has_its_class() -> None:
    users: dict[ErrorCode, set[str]] = {code: set() for code in ErrorCode}
    for name, one in CODED.items():
        users[vars(one)["CODE"]].add(name)
    expected = {
        ErrorCode.INVALID_CRA_HANDLER: {"InvalidSolver"},
        ErrorCode.RP_TIMEOUT: {"CallTimeout"},
        ErrorCode.RP_DISCONNECT: {"CallDisconnected"},
        ErrorCode.CLIENT_ALREADY_CONNECTED: {"AlreadyConnected"},
        ErrorCode.WS_CLIENT_ERROR: {"ConnectionFailed"},
        ErrorCode.CONNECTION_NOT_READY: {"NotConnected"},
        ErrorCode.OUTBOX_FULL: {"OutboxFull"},
        ErrorCode.SOLVER_MISSING: {"SolverMissing"},
        ErrorCode.NOT_AUTHORIZED: {"NotAuthorized"},
        ErrorCode.NO_CLIENT_CONNECTION: {"NoSuchClient"},
        ErrorCode.IDENTIFY_HANDLER_MISSING: {"IdentifyMissing"},
        ErrorCode.INVALID_CRA_GENERATOR: set(),
        ErrorCode.CHALLENGE_ROUNDS: {"ChallengeRoundsExceeded"},
        ErrorCode.RP_EXECUTION_FAILED: {"CallFailed"},
        ErrorCode.RP_NOT_REGISTERED: {"CallNotRegistered"},
        ErrorCode.RP_ALREADY_REGISTERED: {"AlreadyRegistered"},
        ErrorCode.INVALID_PAYLOAD: {"InvalidPayload"},
        ErrorCode.MESSAGE_TOO_LARGE: {"MessageTooLarge"},
        ErrorCode.PROTOCOL_VIOLATION: {"ProtocolViolation"},
        ErrorCode.CONNECTION_ERROR: {"ConnectionBroken"},
        ErrorCode.MESSAGE_PROCESSING_ERROR: {"MessageUnreadable", "HandlerFailed"},
    }
    assert users == expected


@pytest.mark.parametrize("name", sorted(CODED))
def test_an_error_has_the_code_of_its_class(name: str) -> None:
    error = CODED[name]()  # type: ignore[call-arg]
    assert error.code == vars(CODED[name])["CODE"]
    assert type(error.code) is str
    assert error.details == {}
    assert error.message == ""


def test_an_error_of_the_application_has_any_code_and_details() -> None:
    error = WseError("out-of-stock", {"left": 0}, "for the log")
    assert (error.code, error.details, error.message) == (
        "out-of-stock",
        {"left": 0},
        "for the log",
    )


@pytest.mark.parametrize("details", [0, "", [], False])
def test_falsy_details_are_details(details: object) -> None:
    assert WseError("code", details).details == details


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (WseError("code"), "code"),
        (WseError("code", {"a": 1}), "code {'a': 1}"),
        (WseError("code", message="why"), "code: why"),
        (WseError("code", [2], "why"), "code: why [2]"),
        (NotConnected(), "wse.client.not-ready"),
    ],
)
def test_what_people_read(error: WseError, text: str) -> None:
    assert str(error) == text


def test_a_code_of_the_enum_is_taken_as_text() -> None:
    assert type(WseError(ErrorCode.RP_TIMEOUT).code) is str


@pytest.mark.parametrize(
    "error",
    [CallTimeout({"a": 1}, "why"), WseError("mine", [1], "why"), ConnectionFailed({"b": 2})],
)
def test_errors_survive_pickling_and_copying(error: WseError) -> None:
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):  # noqa: S301
        assert type(twin) is type(error)
        assert (twin.code, twin.details, twin.message) == (error.code, error.details, error.message)


def test_a_copy_of_a_failed_connection_still_says_whether_to_try_again() -> None:
    twin = copy.copy(ConnectionFailed(temporary=False, retry_after=7.5))
    assert (twin.temporary, twin.retry_after) == (False, 7.5)


def test_a_failed_connection_says_whether_to_try_again() -> None:
    plain = ConnectionFailed()
    assert (plain.temporary, plain.retry_after) == (True, 0.0)
    told = ConnectionFailed({"status": 503}, temporary=False, retry_after=7.5)
    assert (told.details, told.temporary, told.retry_after) == ({"status": 503}, False, 7.5)


def test_groups_catch_their_members() -> None:
    with pytest.raises(CallError):
        raise CallTimeout
    with pytest.raises(UsageError):
        raise NotConnected
    assert not issubclass(CallTimeout, TimeoutError)


@pytest.mark.parametrize(
    "one", [CallTimeout, CallDisconnected, CallFailed, CallNotRegistered, InvalidPayload]
)
def test_a_reply_with_a_known_code_raises_its_class(one: type[WseError]) -> None:
    error = error_of(vars(one)["CODE"].value, {"id": "7"}, "text")
    assert type(error) is one
    assert (error.details, error.message) == ({"id": "7"}, "text")


@pytest.mark.parametrize("code", ["mine", ErrorCode.NOT_AUTHORIZED, ErrorCode.CONNECTION_NOT_READY])
def test_a_reply_with_another_code_is_a_plain_error(code: str) -> None:
    error = error_of(code, [1])
    assert type(error) is WseError
    assert (error.code, error.details) == (code, [1])


def test_a_handlers_failure_and_an_unreadable_message_share_a_code_but_no_class() -> None:
    assert HandlerFailed().code == MessageUnreadable().code
    assert not issubclass(HandlerFailed, MessageUnreadable)
