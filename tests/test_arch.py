"""The accelerator's parameters."""

import dataclasses

import numpy as np
import pytest

from phantom_jax import Phantom2D


def test_defaults_are_phantom_hp() -> None:
    arch = Phantom2D()
    assert dataclasses.astuple(arch) == (7, 4, 3, 3, 27, "out_of_order", True, True)
    assert arch == Phantom2D.preset("phantom_hp")
    assert (arch.cores, arch.slots, arch.multipliers) == (28, 9, 252)


@pytest.mark.parametrize(("preset", "lookahead"), [("phantom_cv", 9), ("phantom_md", 18), ("phantom_hp", 27)])
def test_presets_differ_in_lookahead(preset: str, lookahead: int) -> None:
    assert Phantom2D.preset(preset) == Phantom2D(lookahead=lookahead)


def test_is_frozen_and_hashable() -> None:
    assert len({Phantom2D(), Phantom2D(rows=7), Phantom2D(rows=8)}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        Phantom2D().rows = 3  # pyright: ignore[reportAttributeAccessIssue]


def test_takes_numpy_scalars_as_plain_values() -> None:
    arch = Phantom2D(rows=np.int32(5), intra_balance=np.bool_(False))  # pyright: ignore[reportArgumentType]
    assert type(arch.rows) is int
    assert arch.intra_balance is False


@pytest.mark.parametrize("name", ["rows", "cols", "pes", "threads", "lookahead"])
@pytest.mark.parametrize("value", [0, -1, True, 1.5, 2.0, "3", None, np.bool_(True), [2]])
def test_sizes_are_positive_integers(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be a positive integer, got "):
        Phantom2D(**{name: value})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["intra_balance", "inter_balance"])
@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_switches_are_bools(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be true or false, got "):
        Phantom2D(**{name: value})  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("value", ["", "inorder", "IN_ORDER", None, 3])
def test_selector_is_one_of_two(value: object) -> None:
    with pytest.raises(ValueError, match=r"^selector must be one of in_order, out_of_order, got "):
        Phantom2D(selector=value)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("value", ["", "phantom", None, 3])
def test_unknown_preset(value: object) -> None:
    with pytest.raises(ValueError, match=r"^preset must be one of phantom_cv, phantom_md, phantom_hp, got "):
        Phantom2D.preset(value)  # pyright: ignore[reportArgumentType]
