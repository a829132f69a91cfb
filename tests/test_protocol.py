from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import SECRET, TOKEN

from wse import (
    ErrorCode,
    InvalidPayload,
    MessageUnreadable,
    Protocol,
    ProtocolViolation,
    Types,
    WseJSON,
)
from wse.messages import Call, Challenge, Event, Failure, Greeting, Hi, Message, Result, Welcome
from wse.protocol import (
    MAX_STAMP_LENGTH,
    decode_checked,
    payload_path,
    without_lone_surrogates,
)

OLD = "~wse:call:add:GG6m2sxiou"
NEW = "MkicOiqzp4"
FAILED = {
    "code": "wse.server.rp.failed",
    "message": "Remote procedure failed",
    "details": {"id": "1f"},
}


class Plain(Protocol):
    """Plain data in a JSON object, with names of its own."""

    name = "plain.1"
    types = Types(
        hi="HELLO",
        challenge="PROVE",
        welcome="COME-IN",
        call="ASK",
        response="ANSWER",
        response_error="SORRY",
    )

    def pack(self, type: str, payload: Any, stamp: Any) -> str:
        return json.dumps({"t": type, "p": payload, "s": stamp}, ensure_ascii=False)

    def unpack(self, data: bytes) -> tuple[Any, Any, Any]:
        message = json.loads(data)
        return message["t"], message["p"], message["s"]


class MessagePack(Protocol):
    name = "msgpack.1"
    binary = True

    def pack(self, type: str, payload: Any, stamp: Any) -> bytes:
        return msgspec.msgpack.encode((type, payload, stamp))

    def unpack(self, data: bytes) -> tuple[Any, Any, Any]:
        type, payload, stamp = msgspec.msgpack.decode(data)
        return type, payload, stamp


class Scripted(Protocol):
    """Unpacks whatever the test says."""

    name = "scripted"
    outcome: ClassVar[Any] = None

    def pack(self, type: str, payload: Any, stamp: Any) -> bytes:
        raise NotImplementedError

    def unpack(self, data: bytes) -> tuple[Any, Any, Any]:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome  # type: ignore[no-any-return]


def scripted(outcome: Any) -> Protocol:
    protocol = Scripted()
    protocol.outcome = outcome  # type: ignore[misc]
    return protocol


def content(data: bytes) -> Any:
    return json.loads(data)


def read(data: str | bytes) -> Message:
    return WseJSON().read(data.encode() if isinstance(data, str) else data)


def plain(message: Message) -> Any:
    """The payload of a message as a handler without an annotation gets it."""
    assert isinstance(message, Challenge | Welcome | Event | Call | Result)
    return WseJSON().plain(message.payload)


# -- out -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("payload", [0, "", False, None, [], {}, {"m": 1}, "ä€😀", 1.5])
def test_a_message_is_an_array_of_three(payload: Any) -> None:
    assert content(WseJSON().encode("hello", payload)) == ["hello", payload, None]


def test_the_handshake_as_the_wire_has_it() -> None:
    protocol = WseJSON()
    assert protocol.hi("s", {"a": 1}) == b'["~wse:hi",{"identity":"s","meta":{"a":1}},null]'
    assert protocol.challenge({"a": 1, "b": 2}) == b'["~wse:challenge",{"a":1,"b":2},null]'
    assert protocol.challenge(3) == b'["~wse:challenge",3,null]'
    assert protocol.welcome({"hey": 1}) == b'["~wse:welcome",{"hey":1},null]'
    assert protocol.welcome(None) == b'["~wse:welcome",null,null]'


def test_a_client_stamps_its_calls_so_that_every_server_answers() -> None:
    assert WseJSON().call_stamp("add", 7) == "~wse:call:add:7"


@pytest.mark.parametrize("value", [8, 0, None, False, {"a": []}])
def test_the_stamp_chooses_the_form_of_a_result(value: Any) -> None:
    protocol = WseJSON()
    assert content(protocol.result(OLD, value)) == [OLD, value, {"success": True}]
    assert content(protocol.result(NEW, value)) == ["~wse:response", value, NEW]


@pytest.mark.parametrize("stamp", ["~wse:call", "~wse:callx:add:1", "x~wse:call:add:1", ""])
def test_only_the_call_type_and_a_colon_want_the_old_form(stamp: str) -> None:
    assert content(WseJSON().result(stamp, 1)) == ["~wse:response", 1, stamp]
    assert content(WseJSON().failure(stamp, "c"))[0] == "~wse:response-err"


def test_the_reply_for_no_such_procedure() -> None:
    error = {"code": "wse.server.rp.not-registered"}
    protocol = WseJSON()
    assert content(protocol.failure(OLD, ErrorCode.RP_NOT_REGISTERED)) == [OLD, None, error]
    assert content(protocol.failure(NEW, ErrorCode.RP_NOT_REGISTERED)) == [
        "~wse:response-err",
        error,
        NEW,
    ]


def test_the_reply_for_an_ordinary_error_is_a_code_and_an_id() -> None:
    protocol = WseJSON()
    code = ErrorCode.RP_EXECUTION_FAILED
    assert content(protocol.failure(OLD, code, {"id": "1f"})) == [OLD, None, FAILED]
    assert content(protocol.failure(NEW, code, {"id": "1f"})) == ["~wse:response-err", FAILED, NEW]


@pytest.mark.parametrize("details", [{"fun": 1}, {}, [], 0, "text"])
def test_the_reply_for_an_error_of_the_applications_has_its_details(details: Any) -> None:
    protocol = WseJSON()
    assert content(protocol.failure(OLD, "my-code", details)) == [
        OLD,
        None,
        {"type": "wse-error", "code": "my-code", "details": details},
    ]
    assert content(protocol.failure(NEW, "my-code", details)) == [
        "~wse:response-err",
        {"code": "my-code", "details": details},
        NEW,
    ]


def test_what_cannot_be_packed_reaches_who_sends_it() -> None:
    with pytest.raises(TypeError):
        WseJSON().encode("hello", object())


# -- in --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "identity", "meta"),
    [
        ('["~wse:hi",{"identity":"s","meta":{"a":1}},null]', "s", {"a": 1}),
        ('["~wse:hi",{"identity":"s"}]', "s", {}),
        ('["~wse:hi",{"identity":"s","meta":null}]', "s", {}),
        ('["~wse:hi",{"meta":0,"more":1}]', None, 0),
        ('["~wse:hi",{}]', None, {}),
        (r'["~wse:hi",{"identity":"\ud800"}]', "\ufffd", {}),
    ],
)
def test_a_hi(frame: str, identity: Any, meta: Any) -> None:
    message = read(frame)
    assert isinstance(message, Hi)
    assert WseJSON().read_hi(message) == Greeting(identity, meta)


@pytest.mark.parametrize("frame", [f'["~wse:hi",{p}]' for p in ("null", "[]", '"s"', "1", "false")])
def test_a_hi_without_an_object(frame: str) -> None:
    message = read(frame)
    assert isinstance(message, Hi)
    with pytest.raises(ProtocolViolation):
        WseJSON().read_hi(message)


def test_a_hi_without_a_payload() -> None:
    message = read('["~wse:hi"]')
    assert isinstance(message, Hi)
    with pytest.raises(ProtocolViolation):
        WseJSON().read_hi(message)


@pytest.mark.parametrize(
    ("frame", "kind", "payload"),
    [
        ('["~wse:challenge",3,null]', Challenge, 3),
        ('["~wse:challenge"]', Challenge, None),
        ('["~wse:welcome",{"hey":1},null]', Welcome, {"hey": 1}),
        ('["~wse:welcome"]', Welcome, None),
        ('["hello",{"m":1},null]', Event, {"m": 1}),
        ('["nothing",null,null]', Event, None),
        ('["nothing"]', Event, None),
        ('["more",1,null,{"a":1},[2]]', Event, 1),
        ('["more",1,null,1e999]', Event, 1),
        (' [ "spaces" , 1 ] ', Event, 1),
        ('["",0]', Event, 0),
        ('["~wse:unknown",1]', Event, 1),
        ('["add",{"a":5},"MkicOiqzp4"]', Call, {"a": 5}),
        ('["~wse:response",8,"MkicOiqzp4"]', Result, 8),
        ('["~wse:call:add:GG6m2sxiou",8,{"success":true}]', Result, 8),
    ],
)
def test_a_message(frame: str, kind: type[Message], payload: Any) -> None:
    message = read(frame)
    assert type(message) is kind
    assert plain(message) == payload


def test_a_call_has_a_name_and_a_stamp() -> None:
    message = read(f'["add",1,"{OLD}"]')
    assert isinstance(message, Call)
    assert (message.name, message.stamp) == ("add", OLD)


@pytest.mark.parametrize(
    ("frame", "stamp"),
    [(f'["~wse:response",8,"{NEW}"]', NEW), (f'["{OLD}",8,{{"success":true}}]', OLD)],
)
def test_a_result_names_its_call(frame: str, stamp: str) -> None:
    message = read(frame)
    assert isinstance(message, Result)
    assert message.stamp == stamp


@pytest.mark.parametrize("stamp", ["5", "null", "{}", "[]", "true"])
def test_a_reply_whose_stamp_is_no_text_names_no_call(stamp: str) -> None:
    assert getattr(read(f'["~wse:response",1,{stamp}]'), "stamp", None) == ""
    assert read(f'["~wse:response-err",{{"code":"c"}},{stamp}]') == Failure("", "c", None, "")


@pytest.mark.parametrize(
    ("error", "code", "details", "message"),
    [
        (FAILED, "wse.server.rp.failed", {"id": "1f"}, "Remote procedure failed"),
        ({"code": "wse.server.rp.not-registered"}, "wse.server.rp.not-registered", None, ""),
        ({"type": "wse-error", "code": "c", "details": {"fun": 1}}, "c", {"fun": 1}, ""),
        ({"code": "c", "details": 0, "more": 1}, "c", 0, ""),
        ({"details": [1]}, "wse.server.rp.failed", [1], ""),
        ({}, "wse.server.rp.failed", None, ""),
        # What cannot be read is still the end of its call.
        (None, "wse.server.rp.failed", None, ""),
        ("boom", "wse.server.rp.failed", None, ""),
        ({"code": 5}, "wse.server.rp.failed", None, ""),
    ],
)
def test_both_forms_of_an_error(error: Any, code: str, details: Any, message: str) -> None:
    new = read(json.dumps(["~wse:response-err", error, NEW]))
    assert new == Failure(NEW, code, details, message)
    if error is not None:
        old = read(json.dumps([OLD, None, error]))
        assert old == Failure(OLD, code, details, message)


@pytest.mark.parametrize("stamp", ["1", "1.5", "true", "false", "{}", "[]", '"' + "s" * 513 + '"'])
def test_a_stamp_that_is_no_short_text(stamp: str) -> None:
    with pytest.raises(ProtocolViolation):
        read(f'["add",1,{stamp}]')


def test_the_longest_stamp() -> None:
    message = read(json.dumps(["add", 1, "s" * MAX_STAMP_LENGTH]))
    assert isinstance(message, Call)
    assert len(message.stamp) == 512


def test_an_empty_stamp_is_one() -> None:
    message = read('["add",1,""]')
    assert isinstance(message, Call)
    assert message.stamp == ""


@pytest.mark.parametrize(
    "frame",
    ["{}", "1", '""', '"text"', "null", "[]", "[null]", "[1]", "[{}]", "[[]]", "[true]"],
)
def test_a_message_without_a_type(frame: str) -> None:
    with pytest.raises(ProtocolViolation):
        read(frame)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"hello",
        b"[",
        b'["a"',
        b'["a",]',
        b'["a",1]x',
        b'["a",NaN]',
        b"['a']",
        b'["\xff",1]',
        b'["a",1,"\xff"]',
        b'["a","\\ud800',
        b'["a","\\x"]',
        b'["a",' + b"[" * 200_000 + b"]" * 200_000 + b"]",
        b'["a",1,' + b"[" * 200_000 + b"]" * 200_000 + b"]",
    ],
    ids=lambda frame: frame[:12].decode(errors="replace"),
)
def test_what_cannot_be_read(frame: bytes) -> None:
    with pytest.raises(MessageUnreadable) as caught:
        read(frame)
    assert caught.value.__cause__ is not None


def test_an_object_that_nests_deeply_in_place_of_a_message() -> None:
    with pytest.raises((MessageUnreadable, ProtocolViolation)):
        read("[" * 200_000)


@pytest.mark.parametrize("number", ["1e999", "9" * 5000, "-" + "9" * 5000])
def test_a_number_too_large_is_an_error_of_the_payload_alone(number: str) -> None:
    message = read(f'["a",{number}]')
    assert isinstance(message, Event)
    with pytest.raises(InvalidPayload):
        decode_checked(WseJSON().plain, message.payload)


def test_invalid_text_in_a_payload_is_an_error_of_the_payload_alone() -> None:
    message = read(b'["a","\xff"]')
    assert isinstance(message, Event)
    with pytest.raises(InvalidPayload):
        decode_checked(WseJSON().plain, message.payload)


# -- lone surrogates -------------------------------------------------------------------------------


def test_a_lone_surrogate_in_a_payload() -> None:
    message = read(rb'["a",{"\udc00":["x\ud800y","\uD83D\uDE00",1.5,null,true]}]')
    assert plain(message) == {"\ufffd": ["x\ufffdy", "😀", 1.5, None, True]}


def test_a_lone_surrogate_in_a_type() -> None:
    message = read(rb'["\ud800x",1]')
    assert isinstance(message, Event)
    assert message.type == "\ufffdx"
    assert plain(message) == 1


def test_a_lone_surrogate_in_a_stamp() -> None:
    message = read(rb'["add",1,"s\udfff"]')
    assert isinstance(message, Call)
    assert message.stamp == "s\ufffd"


def test_a_lone_surrogate_in_an_error() -> None:
    assert read(rb'["~wse:response-err",{"code":"c","details":"\ud800"},"s"]') == Failure(
        "s", "c", "\ufffd", ""
    )
    assert read(rb'["~wse:call:a:1",null,{"code":"c","details":"\ud800"}]') == Failure(
        "~wse:call:a:1", "c", "\ufffd", ""
    )


def test_a_lone_surrogate_reaches_a_typed_handler() -> None:
    decode = WseJSON().decoder(list[str])
    assert decode(msgspec.Raw(rb'["a\ud800"]')) == ["a\ufffd"]
    with pytest.raises(msgspec.ValidationError):
        decode(msgspec.Raw(rb'["a\ud800", 1]'))


def test_an_escaped_backslash_is_no_surrogate() -> None:
    assert plain(read(rb'["a","\\ud800"]')) == r"\ud800"
    assert plain(read(rb'["a","\\ud800 \ud800"]')) == "\\ud800 \ufffd"


@pytest.mark.parametrize("data", [b"[1]", b"[", rb'["\ud83d\ude00"]', rb'["\\ud800"]'])
def test_what_has_no_lone_surrogate(data: bytes) -> None:
    with pytest.raises(ValueError, match="no lone surrogate"):
        without_lone_surrogates(data)


@pytest.mark.parametrize("frame", [rb'["\ud800', b'["\\ud800 \xff",1]', rb'["\ud800", nope]'])
def test_what_a_lone_surrogate_does_not_excuse(frame: bytes) -> None:
    with pytest.raises(MessageUnreadable):
        read(frame)


@pytest.mark.parametrize("number", ["1e999", "1" * 5000])
def test_a_lone_surrogate_beside_a_number_too_large(number: str) -> None:
    message = read(rf'["a",["\ud800",{number}]]')
    assert isinstance(message, Event)
    with pytest.raises(InvalidPayload):
        decode_checked(WseJSON().plain, message.payload)


@given(st.text(st.sampled_from(["\\", "u", "d", "8", "0", "c", '"', "n", "a"]), max_size=40))
def test_only_lone_surrogates_are_replaced(text: str) -> None:
    """Against the standard library, which reads them."""
    data = f'"{text}"'.encode()
    try:
        expected = json.loads(data)
    except ValueError:
        return
    try:
        repaired = without_lone_surrogates(data)
    except ValueError:
        repaired = data
    alike = "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in expected)
    assert json.loads(repaired) == alike


# -- where a payload does not fit ------------------------------------------------------------------


class User(msgspec.Struct):
    name: str
    age: int = 0


class Order(msgspec.Struct):
    user: User
    items: list[int] = []
    notes: dict[str, int] = {}


@dataclass
class Point:
    x: int
    y: int


class Box(TypedDict):
    low: Point
    high: Point


@pytest.mark.parametrize(
    ("kind", "payload", "path"),
    [
        (int, "x", "$"),
        (Order, [], "$"),
        (Order, {"user": {"name": "a", "age": "old"}}, "$.user.age"),
        (Order, {"user": {"name": "a"}, "items": [1, 2, "x"]}, "$.items[2]"),
        (Order, {"user": {"name": "a"}, "notes": {"k": "x"}}, "$.notes[...]"),
        (Order, {}, "$.user"),
        (Order, {"user": {}}, "$.user.name"),
        (list[int], [1, 2, "x"], "$[2]"),
        (list[User], [{"name": "a"}, {"age": 1}], "$[1].name"),
        (Point, {"x": 1}, "$.y"),
        (Box, {"low": {"x": 1, "y": 2}, "high": {"x": 1}}, "$.high.y"),
        (Box, {"low": {"x": 1, "y": 2}}, "$.high"),
        (dict[int, int], {"a": 1}, "$"),
        (dict[str, dict[int, int]], {"a": {"b": 1}}, "$[...]"),
        (int | None, "x", "$"),
        (None, 1, "$"),
    ],
)
def test_the_path_of_what_does_not_fit(kind: Any, payload: Any, path: str) -> None:
    decoders: list[tuple[Callable[[Any], Any], Any]] = [
        (WseJSON().decoder(kind), msgspec.Raw(msgspec.json.encode(payload))),
        (Plain().decoder(kind), payload),
    ]
    for decode, undecoded in decoders:
        with pytest.raises(InvalidPayload) as caught:
            decode_checked(decode, undecoded)
        assert caught.value.details == {"path": path}


def test_the_error_of_a_payload_says_nothing_but_the_path() -> None:
    with pytest.raises(InvalidPayload) as caught:
        decode_checked(WseJSON().decoder(int), msgspec.Raw(b'"secret"'))
    assert caught.value.details == {"path": "$"}
    assert caught.value.message == ""
    assert isinstance(caught.value.__cause__, msgspec.ValidationError)


class Checked(msgspec.Struct):
    text: str

    def __post_init__(self) -> None:
        raise ValueError(f"{SECRET}{self.text}")


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    pass


@pytest.mark.parametrize("text", ["", f" - at `$.{SECRET}`", f"missing required field `{SECRET}`"])
@pytest.mark.parametrize(
    ("kind", "nest", "path"),
    [(Checked, lambda one: one, "$"), (list[Checked], lambda one: [one], "$[0]")],
)
def test_the_path_has_nothing_of_what_a_check_of_the_application_said(
    kind: Any, nest: Callable[[Any], Any], path: str, text: str
) -> None:
    payload = nest({"text": text})
    for decode, undecoded in (
        (WseJSON().decoder(kind), msgspec.Raw(msgspec.json.encode(payload))),
        (Plain().decoder(kind), payload),
    ):
        with pytest.raises(InvalidPayload) as caught:
            decode_checked(decode, undecoded)
        assert caught.value.details == {"path": path}


@pytest.mark.parametrize("name", ["x", f"x - at `$.{SECRET}", f"x` - at `$.{SECRET}"])
@pytest.mark.parametrize(
    ("kind", "nest"), [(Strict, lambda one: one), (list[Strict], lambda one: [one])]
)
def test_the_path_has_nothing_of_what_a_peer_called_a_field(
    kind: Any, nest: Callable[[Any], Any], name: str
) -> None:
    with pytest.raises(InvalidPayload) as caught:
        decode_checked(WseJSON().decoder(kind), msgspec.Raw(msgspec.json.encode(nest({name: 1}))))
    assert caught.value.details == {"path": "$"}


@pytest.mark.parametrize("text", ["whatever", f"boom - at `$.{SECRET}`"])
def test_a_path_of_an_error_without_one(text: str) -> None:
    assert payload_path(ValueError(text)) == "$"


@pytest.mark.parametrize("protocol", [WseJSON(), Plain(), MessagePack()])
def test_text_that_cannot_be_encoded_is_not_quoted(protocol: Protocol) -> None:
    with pytest.raises(TypeError) as caught:
        protocol.hi(f"\udc80{TOKEN}", None)
    assert TOKEN not in repr(caught.value)


# -- custom protocols ------------------------------------------------------------------------------

CUSTOM = [Plain(), MessagePack()]


@pytest.mark.parametrize("protocol", CUSTOM, ids=repr)
def test_a_custom_protocol_says_everything(protocol: Protocol) -> None:
    old = protocol.call_stamp("add", 1)
    said: list[tuple[bytes, Message]] = [
        (protocol.hi("me", {"a": 1}), Hi({"identity": "me", "meta": {"a": 1}})),
        (protocol.challenge({"n": 1}), Challenge({"n": 1})),
        (protocol.welcome(None), Welcome(None)),
        (protocol.encode("ä", 0), Event("ä", 0)),
        (protocol.encode("add", [1], "7"), Call("add", [1], "7")),
        (protocol.result("7", False), Result("7", False)),
        (protocol.result(old, 5), Result(old, 5)),
        (protocol.failure("7", "c", {"d": 1}), Failure("7", "c", {"d": 1}, "")),
        (protocol.failure(old, "c", {"d": 1}), Failure(old, "c", {"d": 1}, "")),
    ]
    assert [protocol.read(data) for data, _ in said] == [message for _, message in said]


def test_a_custom_protocol_uses_its_own_names_on_the_wire() -> None:
    protocol = Plain()
    said = [
        protocol.hi("me", {}),
        protocol.challenge(1),
        protocol.welcome(1),
        protocol.result("7", 1),
        protocol.failure("7", "c"),
        protocol.result("ASK:add:1", 1),
    ]
    types = [content(data)["t"] for data in said]
    assert types == ["HELLO", "PROVE", "COME-IN", "ANSWER", "SORRY", "ASK:add:1"]
    assert protocol.call_stamp("add", 1) == "ASK:add:1"


def test_the_default_names_mean_nothing_to_a_protocol_with_its_own() -> None:
    assert Plain().read(b'{"t":"~wse:welcome","p":1,"s":null}') == Event("~wse:welcome", 1)


def test_text_becomes_utf_8() -> None:
    assert Plain().encode("ä", "€").decode() == '{"t": "ä", "p": "€", "s": null}'


@pytest.mark.parametrize("protocol", CUSTOM, ids=repr)
def test_typed_payloads_of_a_custom_protocol(protocol: Protocol) -> None:
    assert protocol.decoder(Point)({"x": 1, "y": 2}) == Point(1, 2)
    assert protocol.plain({"x": 1}) == {"x": 1}
    with pytest.raises(msgspec.ValidationError):
        protocol.decoder(Point)({"x": 1})


@pytest.mark.parametrize("protocol", CUSTOM, ids=repr)
def test_a_hi_of_a_custom_protocol_without_an_object(protocol: Protocol) -> None:
    message = protocol.read(protocol.encode(protocol.types.hi, 5))
    assert isinstance(message, Hi)
    with pytest.raises(ProtocolViolation):
        protocol.read_hi(message)


@pytest.mark.parametrize(
    "error", [KeyError(SECRET), RecursionError(SECRET), UnicodeError(), ValueError(SECRET)]
)
def test_a_protocol_that_raises_is_bad_input(error: Exception) -> None:
    with pytest.raises(MessageUnreadable) as caught:
        scripted(error).read(b"")
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("outcome", [None, 5, (), ("a", 1), ("a", 1, None, 2)])
def test_a_protocol_that_returns_no_three_is_bad_input(outcome: Any) -> None:
    with pytest.raises(MessageUnreadable):
        scripted(outcome).read(b"")


@pytest.mark.parametrize("type", [None, 1, b"a", ["a"], {}])
def test_a_protocol_that_returns_no_type(type: Any) -> None:
    with pytest.raises(ProtocolViolation):
        scripted((type, 1, None)).read(b"")


def test_a_protocol_may_say_itself_that_a_message_violates_it() -> None:
    violation = ProtocolViolation(message="mine")
    with pytest.raises(ProtocolViolation) as caught:
        scripted(violation).read(b"")
    assert caught.value is violation


def test_a_protocol_with_an_init_of_its_own_need_not_call_the_base() -> None:
    class Counting(MessagePack):
        def __init__(self) -> None:
            self.count = 0

    assert Counting().read(Counting().welcome(1)) == Welcome(1)


def test_a_protocol_tells_its_name() -> None:
    assert repr(WseJSON()) == "<WseJSON wse-default-json>"
    assert repr(Plain()) == "<Plain plain.1>"


def test_a_protocol_is_text_unless_it_says_so() -> None:
    assert (WseJSON.binary, Plain.binary, MessagePack.binary) == (False, False, True)
