"""What a hostile peer may say: messages, from valid to noise, and stories of them.

Most of it is nearly right: what is refused at once goes no deeper.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from .chance import edited, weighted

__all__ = [
    "HEARD",
    "OFFERED",
    "Do",
    "Opening",
    "Say",
    "Step",
    "Wait",
    "calm_messages",
    "challenges",
    "greetings",
    "message",
    "messages",
    "script",
    "welcomes",
]

# -- JSON ------------------------------------------------------------------------------------------


def _quoted(text: str) -> bytes:
    return json.dumps(text).encode()


def _array(items: Iterable[bytes]) -> bytes:
    return b"[" + b",".join(items) + b"]"


def _object(items: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"{" + b",".join(key + b":" + value for key, value in items) + b"}"


_odd = st.sampled_from(
    [
        *(b"null", b"true", b"false", b"0", b"-1", b"7", b"1.5", b'""', b'"x"', b"[]", b"{}"),
        *(b"1e5", b"-0.0", b"1e999", b"-1e999", b"1e-999", b"9" * 19, b"9" * 400, b" 1 "),
        *(rb'"\ud800"', rb'"\udfff x"', rb'"\ud83d\ude00"', rb'"\\ud800"', rb'{"\ud800":1}'),
        *(b'"\xff"', b'"\xed\xa0\x80"', '"\u2028\U0001f600\x7f"'.encode(), rb'"\u0000\u001b[2J"'),
        *(b"[" * 60 + b"]" * 60, b'{"a":' * 60 + b"1" + b"}" * 60),
    ]
)
_fitting = st.sampled_from(
    [
        *(b'{"a":1,"b":2}', b'{"a":1,"b":2,"c":[]}', b'{"b":2,"a":"1"}', b'{"a":1}', b'{"a":1e3}'),
        *(b'[1,2,"3"]', b"[1,2,3]", b'{"k":1.5}', b'{"k":null}', b"3", b"40", b'"ask"', b'"bye"'),
        *(b'{"k":[1,2]}', _quoted("r" * 123), _quoted("r" * 124), _quoted("\u00e9" * 62)),
        *(_quoted("y" * 600), _quoted("z" * 2000)),
    ]
)
_broken = st.sampled_from(
    [
        *(b"nope", b"NaN", b"Infinity", b"01", b"1.", b"+1", b"'x'", b"[1,]", b'{"a"}', b'"\n"'),
        *(b"[1", b'"open', b'"\\', rb'"\ud8', b"{", b"\xef\xbb\xbf1", b"", b'"' * 3),
        *(b"[" * 1200 + b"]" * 1200, _quoted("z" * 3000)),
    ]
)
_numbers = st.one_of(st.integers(), st.floats()).map(lambda number: json.dumps(number).encode())
_texts = st.text(max_size=12).map(_quoted)
_trees = st.recursive(
    st.one_of(_odd, st.integers().map(lambda number: b"%d" % number), _texts),
    lambda values: st.one_of(
        st.lists(values, max_size=3).map(_array),
        st.lists(st.tuples(_texts, values), max_size=3).map(_object),
    ),
    max_leaves=5,
)
_values = weighted(
    (4, _fitting), (4, _odd), (1, _texts), (1, st.integers().map(lambda n: b"%d" % n)), (1, _trees)
)
"""JSON, if with what Python or UTF-8 cannot carry."""
_any_value = weighted((4, _values), (2, _broken), (1, _numbers))
"""JSON, or nearly so."""


# -- messages --------------------------------------------------------------------------------------

HEARD = ("plain", "numbers", "text", "count", "many", "table", "later", "ordered", "ask", "quit")
"""The message types that the side under test handles, and `flood`."""
OFFERED = ("add", "echo", "fail", "later", "fit", "stuck", "quit")
"""Its procedures."""


def message(type: str | bytes, payload: bytes = b"null", *more: bytes) -> bytes:
    """An array of these; a type that is a `str` is put into quotes."""
    return _array([_quoted(type) if isinstance(type, str) else type, payload, *more])


_types = st.sampled_from(
    [
        *(_quoted(name) for name in (*HEARD, *OFFERED)),
        *(b'"~wse:hi"', b'"~wse:challenge"', b'"~wse:welcome"', b'"~wse:unknown"', b'"~wse:"'),
        *(b'"~wse:response"', b'"~wse:response-err"', b'"~wse:call"', b'"~wse:call:"'),
        *(b'"~wse:call:ask:1"', b'"~wse:call:ask:2"', b'"~wse:call:add:1"', b'"flood"'),
        *(b'"nobody handles this"', b'""', rb'"\ud800"', rb'"\u0000"', b'"\xff"', b"null"),
        *(b"1", b"[]", b"{}", b"true", b"nope", _quoted("t" * 700), b'["plain"]'),
    ]
)
_stamps = st.sampled_from(
    [
        *(b"null", b'"1"', b'"2"', b'"3"', b'"stamp"', b'""', b"17", b"0", b"false", b"true"),
        *(b"[]", b"{}", b"1e999", rb'"\ud800"', b'"\xff"', b"nope", b'{"success":true}'),
        *(b'{"success":1}', b'{"code":"wse.client.rp.timeout","message":"\\n"}', b'{"code":7}'),
        *(b'{"type":"wse-error","code":"mine","details":{"a":[1]}}', b'{"code":null,"x":1e999}'),
        *(b'"~wse:call:add:1"', b'"~wse:call:"', b'"~wse:call:ask:1"', b"[" * 1200 + b"]" * 1200),
        *(_quoted("s" * 512), _quoted("s" * 513)),
    ]
)
_events = st.builds(
    message, st.sampled_from([*HEARD, "flood", "flood", "nobody handles this", ""]), _values
)
_calls = st.builds(
    message,
    st.sampled_from([*OFFERED, "nobody offers this"]),
    _values,
    st.sampled_from([b'"1"', b'"2"', b'"s"', b'"~wse:call:add:1"', rb'"\ud800"', b'""']),
)
_replies = st.builds(
    message,
    st.sampled_from(["~wse:response", "~wse:response-err"]),
    weighted(
        (2, _values),
        (
            1,
            st.sampled_from(
                [
                    *(b'{"code":"mine","details":1}', b'{"code":"wse.server.rp.failed"}'),
                    *(
                        b'{"code":"\\n","message":"\\u202e"}',
                        b'{"code":7,"message":[],"details":1e999}',
                    ),
                ]
            ),
        ),
    ),
    st.sampled_from([*[b'"1"'] * 4, b'"2"', b'"2"', b'"3"', b"1", b"null"]),
)
_old_replies = st.builds(
    message,
    st.sampled_from([f"~wse:call:ask:{number}" for number in (1, 1, 1, 1, 2, 2, 3)]),
    _values,
    st.sampled_from(
        [
            *[b'{"success":true}', b'{"code":"mine"}'] * 3,
            *(
                b'{"success":1}',
                b"true",
                b"[]",
                b'{"code":7,"message":[]}',
                b'{"code":"\\n"}',
                b"7",
            ),
        ]
    ),
)
_greetings = st.builds(
    message, st.sampled_from(["~wse:hi", "~wse:challenge", "~wse:welcome"]), _values
)
calm_messages: SearchStrategy[bytes] = weighted(
    (8, _events), (8, _calls), (3, _replies), (3, _old_replies), (2, _greetings)
)
"""Messages that break no protocol, once a connection is welcomed."""

greetings: SearchStrategy[bytes] = st.builds(
    lambda identity, meta: message("~wse:hi", b'{"identity":%s,"meta":%s}' % (identity, meta)),
    *(_any_value, _any_value),
)
"""A client's first message, with whatever it says of itself."""
challenges: SearchStrategy[bytes] = st.builds(message, st.just("~wse:challenge"), _any_value)
"""A quest or an answer."""
welcomes: SearchStrategy[bytes] = st.builds(message, st.just("~wse:welcome"), _any_value)

_any_three = st.builds(message, _types, _any_value, _stamps)
_any_number = st.lists(st.one_of(_types, _stamps), max_size=6).map(_array)
messages: SearchStrategy[bytes] = weighted(
    (3, calm_messages),
    (2, _any_three),
    (1, _any_number),
    (2, edited(st.one_of(calm_messages, _any_three))),
    (1, st.one_of(_any_value, st.binary(max_size=80))),
)
"""The content of one WebSocket message, whatever it is."""


# -- what a peer does ------------------------------------------------------------------------------


class Say(NamedTuple):
    """Send a message."""

    data: bytes
    text: bool = True
    hurried: bool = False
    """The next thing happens before it has arrived."""


class Wait(NamedTuple):
    """Let time pass."""

    seconds: float


class Do(NamedTuple):
    """Something else than talking, by name."""

    what: str


Step = Say | Wait | Do


Opening = tuple[int, Sequence[bytes | SearchStrategy[bytes]]]
"""How often, and the messages that bring a connection to another stage."""


def script(
    openings: Sequence[Opening],
    deeds: Sequence[str],
    ends: Sequence[str],
) -> SearchStrategy[list[Step]]:
    """One connection's story: an opening, then what is in order, then anything.

    Args:
        openings: What it begins with.
        deeds: What the peer, or the side under test, may do besides talking.
        ends: What may end the connection amid all this.
    """

    def talk(
        contents: SearchStrategy[bytes], *more: tuple[int, SearchStrategy[Sequence[Step]]]
    ) -> SearchStrategy[Sequence[Sequence[Step]]]:
        texts = st.sampled_from([True, True, False])
        once = st.builds(Say, contents, texts, st.booleans()).map(lambda say: (say,))
        twice = st.builds(Say, contents, texts, st.just(value=True)).map(lambda say: (say, say))
        done = st.sampled_from([(Do(deed),) for deed in deeds])
        waited = st.sampled_from([(Wait(seconds),) for seconds in (0.1, 1.0, 4.0, 30.0)])
        return st.lists(
            weighted((20, once), (2, twice), (5, done), (2, waited), *more), max_size=24
        )

    def said(contents: bytes | SearchStrategy[bytes]) -> SearchStrategy[Say]:
        return (st.just(contents) if isinstance(contents, bytes) else contents).map(Say)

    opening = weighted(*((w, st.tuples(*map(said, opening))) for w, opening in openings))
    return st.builds(
        lambda begin, *talks: [
            *begin,
            *(step for talk in talks for steps in talk for step in steps),
        ],
        opening,
        talk(calm_messages),
        talk(calm_messages),
        talk(messages, (3, st.sampled_from([(Do(end),) for end in ends]))),
    )
