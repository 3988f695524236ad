"""The names and signatures that users rely on: docs/specification.md, section 10."""

import inspect

import pytest

import phantom_jax
from phantom_jax import Layer, Phantom2D, baselines

NAMES = (
    "Calibration Layer LayerReport Phantom2D Report Skipped Traced baselines calibrate core_cycles expected_cycles "
    "expected_cycles_from from_onnx simulate trace workloads"
)


def parameters(function: object) -> str:
    """Returns the parameters and their defaults, without types."""
    signature = inspect.signature(function)  # pyright: ignore[reportArgumentType]
    plain = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=plain, return_annotation=signature.empty))


def test_names() -> None:
    assert sorted(phantom_jax.__all__) == NAMES.split()
    assert all(hasattr(phantom_jax, name) for name in phantom_jax.__all__)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (phantom_jax.simulate, "(layers, arch)"),
        (phantom_jax.expected_cycles, "(layers, arch)"),
        (phantom_jax.calibrate, "(layers, arch)"),
        (phantom_jax.expected_cycles_from, "(calibration, weights)"),
        (phantom_jax.trace, "(fn, *args)"),
        (
            Phantom2D,
            "(rows=7, cols=4, pes=3, threads=3, lookahead=27, selector='out_of_order', "
            "intra_balance=True, inter_balance=True)",
        ),
        (
            Layer.conv,
            "(weights, activations, strides=1, padding='SAME', input_dilation=1, kernel_dilation=1, "
            "feature_group_count=1, name=None)",
        ),
        (Layer.dense, "(weights, activations, name=None)"),
        (
            baselines.SCNN,
            "(barrier='group', bank_conflicts=False, accumulators=1024, pe_grid=(8, 8), weights_per_step=4, "
            "activations_per_step=4, banks=32)",
        ),
        (baselines.SparTen, "(clusters=32, units=32, chunk=128, greedy_balance=True)"),
        (baselines.EyerissV2, "(clusters=16, pes_per_cluster=12, macs_per_pe=2)"),
    ],
)
def test_signatures(function: object, expected: str) -> None:
    assert parameters(function).startswith(expected.removesuffix(")"))  # what follows has a default


def test_presets() -> None:
    assert Phantom2D.preset("phantom_hp") == Phantom2D()


def test_a_report_is_read_by_these_names() -> None:
    layer = Layer.dense([[1], [1]], [[1, 0]])
    report = phantom_jax.simulate(layer, Phantom2D())
    row = report.layers[0]
    assert (row.name, row.row_axis, row.stream) == ("layer0", "jobs", "positions")
    assert (row.dense_cycles, row.dense_macs) == (1, 2)
    assert [array.tolist() for array in (report.cycles, row.cycles, row.effectual_macs)] == [[1], [1], [1]]
    assert report.to_dict()["layers"][0]["name"] == "layer0"
    assert row.stack["effectual"].tolist() == [1]
    assert baselines.Dense(multipliers=252).simulate(layer).layers[0].cycles.tolist() == [1]
    assert baselines.Dense(arch=Phantom2D()).simulate(layer).layers[0].cycles.tolist() == [row.dense_cycles]
