"""Ten thousand hostile inputs, new ones each time; `make fuzz` plays a million."""

from __future__ import annotations

import secrets

import pytest
from fuzz.batches import SCENES
from fuzz.scene import Totals, growth, play

INPUTS = 2_000
"""Of each scene."""
BYTES = 4096
"""That may be held more at one moment than at another; fifty connections that leak are above it."""

every_scene = pytest.mark.parametrize("name", SCENES)


@every_scene
def test_whatever_a_peer_sends_ends_well(name: str) -> None:
    scene, stories = SCENES[name]
    totals = Totals()
    while totals.inputs < INPUTS:
        totals.add(play(scene, stories // 5, secrets.randbits(32)))


@every_scene
def test_what_peers_have_sent_is_forgotten(name: str) -> None:
    assert growth(SCENES[name].kind, 50, secrets.randbits(32)) < BYTES
