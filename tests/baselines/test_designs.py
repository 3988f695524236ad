"""Every baseline against its scalar reference, stacks that sum, what all designs have in common, bad input."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phantom_jax import Layer, Phantom2D, simulate
from phantom_jax.baselines import SCNN, Dense, Design, EyerissV2, SparTen
from phantom_jax.baselines.design import all_ones
from tests import cases
from tests.reference import baselines as reference

# Small arrays, so that small layers fill them, and the published ones.
SCNNS = (
    SCNN(),
    SCNN(barrier="channel", bank_conflicts=True, accumulators=6144),
    SCNN(bank_conflicts=True, pe_grid=(2, 3), accumulators=16),
    SCNN(barrier="channel", pe_grid=(3, 1), weights_per_step=2, activations_per_step=3, accumulators=5),
    SCNN(bank_conflicts=True, pe_grid=(1, 2), weights_per_step=3, activations_per_step=1, banks=7),
)
SPARTENS = (
    SparTen(),
    SparTen(clusters=3, units=4, chunk=16),
    SparTen(clusters=2, units=3, chunk=5, greedy_balance=False),
    SparTen(clusters=1, units=1, chunk=1),
)
EYERISSES = (
    EyerissV2(),
    EyerissV2(clusters=1, pes_per_cluster=1, macs_per_pe=1),
    EyerissV2(clusters=3, pes_per_cluster=4, macs_per_pe=2, psums=3, weights=7),
    EyerissV2(clusters=2, pes_per_cluster=3, macs_per_pe=3, psums=2, weights=1, barrier="layer"),
)
DESIGNS = (Dense(), Dense(arch=Phantom2D()), SCNN(), SparTen(), EyerissV2())

CONV = Layer.conv(np.ones((3, 3, 4, 6)), np.ones((2, 8, 8, 4)), name="conv")


def check(design: Design, layer: Layer, padding: Any, expected: Any) -> None:
    """Compares all images of a layer with the reference, and the cycles of masks of ones."""
    counted = design.simulate(layer).layers[0]
    for image in range(layer.batch):
        wanted = expected(cases.problem(layer, image, padding), design)
        got = {"cycles": int(counted.cycles[image])} | {
            part: int(slots[image]) for part, slots in counted.stack.items() if part != "effectual"
        }
        assert got == wanted
        assert counted.stack["effectual"][image] == reference.effectual(cases.problem(layer, image, padding))
    assert counted.dense_cycles == expected(cases.problem(all_ones(layer), 0, padding), design)["cycles"]
    np.testing.assert_array_equal(sum(counted.stack.values()), counted.cycles * counted.multipliers)


def is_flat(drawn: tuple[Layer, object]) -> bool:
    return len(drawn[0].strides) < 3


@settings(max_examples=60)
@given(cases.layers().filter(is_flat), st.sampled_from(SCNNS))
def test_scnn_is_the_reference(drawn: tuple[Layer, object], design: SCNN) -> None:
    check(design, *drawn, reference.scnn)


@settings(max_examples=60)
@given(cases.layers(), st.sampled_from(SPARTENS))
def test_sparten_is_the_reference(drawn: tuple[Layer, object], design: SparTen) -> None:
    check(design, *drawn, reference.sparten)


@settings(max_examples=60)
@given(cases.layers(), st.sampled_from(EYERISSES))
def test_eyeriss_v2_is_the_reference(drawn: tuple[Layer, object], design: EyerissV2) -> None:
    check(design, *drawn, reference.eyeriss_v2)
