from __future__ import annotations

import pytest
from carriers import BINARY, PING, PONG, TEXT, F, closing, mask

from wse.transports.frames import (
    close_frame,
    frame_binary,
    frame_ping,
    frame_pong,
    frame_text,
    masked,
)


@pytest.mark.parametrize("size", [0, 1, 7, 125, 126, 65_535, 65_536])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_in_one_frame_each_side(opcode: int, size: int) -> None:
    data = bytes(n & 0x7F for n in range(size))
    frame = (frame_text if opcode == TEXT else frame_binary)(data)
    assert frame == F(opcode, data).to("client")
    sent = masked(frame)
    body = len(sent) - size
    assert sent[: body - 4] == bytes([frame[0], frame[1] | 0x80]) + frame[2 : body - 4]
    assert mask(sent[body:], sent[body - 4 : body]) == data


def test_each_frame_has_a_mask_of_its_own() -> None:
    """RFC 6455 section 5.3: unpredictable."""
    frame = frame_text(b"x" * 100)
    keys = {masked(frame)[2:6] for _ in range(20)}
    assert len(keys) > 1
    sent = masked(frame)
    assert mask(sent[6:], sent[2:6]) == b"x" * 100


@pytest.mark.parametrize("size", [0, 5, 125])
def test_pong_frame(size: int) -> None:
    assert frame_pong(b"p" * size) == F(PONG, b"p" * size).to("client")


def test_close_frame() -> None:
    assert close_frame(1000, "bye") == closing(1000, "bye").to("client")


@pytest.mark.parametrize("tail", ["", "x", "xy"])
def test_close_frame_cuts_a_long_reason_between_characters(tail: str) -> None:
    frame = close_frame(1000, tail + "é" * 100)
    assert len(frame) <= 2 + 125
    assert len(frame) >= 2 + 124
    assert frame[4:].decode() == tail + "é" * ((123 - len(tail)) // 2)


def test_ping_frame() -> None:
    assert frame_ping() == F(PING).to("client")
