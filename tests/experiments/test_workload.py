"""Workloads of commands: networks of ONNX files."""

import pathlib

import numpy as np
import pytest

from experiments.harness.workload import load_workload
from tests.experiments import commands

onnx = pytest.importorskip("onnx")


@pytest.fixture
def network(tmp_path: pathlib.Path) -> dict[str, str]:
    """The options of a network that multiplies by constants, and two inputs by each other."""
    commands.save_onnx(tmp_path)
    return {"name": "onnx", "path": str(tmp_path / "net.onnx"), "inputs": str(tmp_path / "inputs.npz")}


def test_an_onnx_network_is_a_workload_that_names_its_files_and_what_it_skips(network: dict[str, str]) -> None:
    workload = load_workload({"workload": network, "seed": 0})
    assert (workload.name, list(workload.names), workload.seed) == ("net", ["fc"], None)
    np.testing.assert_array_equal(workload[0].weights, np.eye(6, 3, dtype=bool))
    assert [note.partition(":")[0] for note in workload.notes] == ["net.onnx"]
    assert "scores (MatMul of (2, 3) and (3, 4))" in workload.notes[0]
    provenance = workload.provenance()
    assert (provenance["path"], provenance["inputs"], provenance["images"]) == (network["path"], network["inputs"], 2)
    assert provenance["sha256"] != provenance["inputs_sha256"]


def test_mistakes_name_the_option(network: dict[str, str], tmp_path: pathlib.Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.ones((2, 6), np.float32))
    without = onnx.load(network["path"])
    del without.graph.node[0]
    without.graph.node[0].input[0] = "x"
    onnx.save(without, tmp_path / "without.onnx")
    np.savez(tmp_path / "square.npz", x=np.ones((2, 3), np.float32), k=np.ones((3, 4), np.float32))
    for options, message in (
        ({"path": "nowhere.onnx"}, "workload.path must name an ONNX file, got 'nowhere.onnx', which is missing"),
        ({"inputs": "nowhere.npz"}, "workload.inputs must name an .npz file, got 'nowhere.npz', which is missing"),
        ({"inputs": str(tmp_path / "x.npz")}, "workload.inputs lack 'k'"),
        (
            {"path": str(tmp_path / "without.onnx"), "inputs": str(tmp_path / "square.npz")},
            "workload.path must name a network with layers",
        ),
    ):
        with pytest.raises(ValueError) as error:  # noqa: PT011 - messages hold dots
            load_workload({"workload": network | options, "seed": 0})
        assert message in str(error.value)
