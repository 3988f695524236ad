"""Compares the numbers and the speed of this checkout with those of another one.

`.venv/bin/python scripts/compare_checkouts.py ../before --masks masks.npz` counts the same layers in both, exactly and
with the proxy, and lists what differs; the exit code is 1 if anything does. With `--repeats`, both are also timed in
turns. Each checkout is run by its own `.venv` where it has one. Only the public names of the library are used.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]


def main() -> int:
    """Compares two checkouts and returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=pathlib.Path, help="the other checkout")
    parser.add_argument("--masks", type=pathlib.Path, help="an .npz file of NAME_weights and NAME_activations")
    parser.add_argument("--size", type=int, default=224, help="side of VGG16's picture")
    parser.add_argument("--repeats", type=int, default=0, help="how often each is timed")
    parser.add_argument("--child", choices=("numbers", "times"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child = numbers if arguments.child == "numbers" else times
        print(json.dumps(child(arguments.size, arguments.masks)))
        return 0
    if not (arguments.other / "phantom_jax").is_dir():
        parser.error(f"other must be a checkout with phantom_jax, got {arguments.other}")
    checkouts = {"this": ROOT, "other": arguments.other.resolve()}
    found = {name: run(path, "numbers", arguments) for name, path in checkouts.items()}
    names = list(dict.fromkeys([*found["this"], *found["other"]]))
    differing = [name for name in names if found["this"].get(name) != found["other"].get(name)]
    print(f"{len(names) - len(differing)} of {len(names)} results are the same.")
    for name in differing:
        print(f"  {name}: this {found['this'].get(name)}, other {found['other'].get(name)}")
    timed: dict[str, list[dict[str, float]]] = {name: [] for name in checkouts}
    for _ in range(arguments.repeats):
        for name, path in checkouts.items():
            timed[name].append(run(path, "times", arguments))
    for what in timed["this"][0] if arguments.repeats else ():
        this, other = (statistics.median(each[what] for each in timed[name]) for name in checkouts)
        print(f"{what}: this {this:.4f} s, other {other:.4f} s, ratio {this / other:.3f}")
    return int(bool(differing))


def run(checkout: pathlib.Path, what: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Runs this file in a process that imports the library of a checkout, and returns what it prints."""
    own = checkout / ".venv" / "bin" / "python"
    masks = ["--masks", str(arguments.masks.resolve())] if arguments.masks else []
    command = [str(own if own.exists() else sys.executable), "-P", __file__, str(checkout), "--child", what]
    done = subprocess.run(
        [*command, "--size", str(arguments.size), *masks],
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    return json.loads(done.stdout)


def numbers(size: int, masks: pathlib.Path | None) -> dict[str, Any]:
    """Returns the exact model's integers and the proxy's floats for all networks and several accelerators."""
    import jax
    import numpy as np

    from phantom_jax import Phantom2D, baselines, calibrate, expected_cycles_from, simulate

    found: dict[str, Any] = {}
    archs = {
        "default": Phantom2D(),
        "in_order": Phantom2D(selector="in_order", lookahead=9),
        "unbalanced": Phantom2D(intra_balance=False, inter_balance=False),
        "other": Phantom2D(rows=3, cols=2, pes=2, threads=4, lookahead=5),
    }
    for network, layers in networks(size, masks):
        for kind, arch in archs.items():
            if network != "vgg16" or kind == "default":
                for layer in simulate(layers, arch).to_dict()["layers"]:
                    found[f"{network}/{kind}/exact/{layer['name']}"] = layer
        if network == "vgg16":
            continue
        for design in (baselines.Dense(), baselines.SCNN(), baselines.SparTen(), baselines.EyerissV2()):
            for layer in design.simulate(layers).to_dict()["layers"]:
                found[f"{network}/{type(design).__name__}/{layer['name']}"] = layer
        rng = np.random.default_rng(1)
        for kind, arch in list(archs.items())[:3]:
            for layer in layers:
                weights = rng.uniform(0.05, 0.95, layer.weights.shape).astype(np.float32)
                calibration = calibrate(layer, arch)
                value, gradient = jax.value_and_grad(
                    lambda weights, calibration=calibration: expected_cycles_from(calibration, [weights])[0]
                )(weights)
                key = f"{network}/{kind}/proxy/{layer.name}"
                found[key] = [float(value), float(gradient.sum()), float(abs(gradient).sum())]
    return found


def times(size: int, masks: pathlib.Path | None) -> dict[str, float]:
    """Returns the seconds that VGG16's convolutions and a step of the proxy take once they are compiled."""
    import jax
    import numpy as np

    from phantom_jax import Phantom2D, calibrate, expected_cycles_from, simulate, workloads

    arch = Phantom2D()
    layers = list(workloads.SyntheticWorkload(workloads.vgg16(size=size), seed=0))[:13]
    small = list(workloads.SyntheticWorkload(workloads.vgg16(size=32), seed=0))[1:5]
    weights = [np.full(layer.weights.shape, 0.3, np.float32) for layer in small]
    calibration = calibrate(small, arch)
    step = jax.jit(jax.value_and_grad(lambda weights: expected_cycles_from(calibration, weights).sum()))
    return {
        "simulate, VGG16's convolutions": fastest(lambda: simulate(layers, arch)),
        "proxy, value and gradient": fastest(lambda: jax.block_until_ready(step(weights))),
    }


def fastest(function: Any, repeats: int = 5) -> float:
    """Returns the shortest time of several calls, after one that is not timed."""
    function()
    taken = []
    for _ in range(repeats):
        begin = time.perf_counter()
        function()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def networks(size: int, masks: pathlib.Path | None) -> Iterator[tuple[str, list[Any]]]:
    """Yields networks by name: VGG16, layers of many kinds, and those of a file of masks."""
    import numpy as np

    from phantom_jax import Layer, workloads

    yield "vgg16", list(workloads.SyntheticWorkload(workloads.vgg16(size=size), seed=0))
    rng = np.random.default_rng(0)

    def conv(name: str, kernel: tuple[int, ...], channels: int, filters: int, side: int, **options: Any) -> Layer:
        groups = options.get("feature_group_count", 1)
        weights = rng.random((*kernel, channels // groups, filters)) < 0.3
        return Layer.conv(weights, rng.random((2, *[side] * len(kernel), channels)) < 0.6, name=name, **options)

    yield (
        "small",
        [
            conv("first", (3, 3), 1, 16, 28),
            conv("square", (3, 3), 16, 32, 14),
            conv("strided", (3, 3), 16, 24, 14, strides=2),
            conv("depthwise", (3, 3), 32, 32, 14, feature_group_count=32),
            conv("pointwise", (1, 1), 40, 24, 7),
            conv("grouped", (5, 5), 8, 12, 9, feature_group_count=2, padding="VALID"),
            conv("line", (5,), 6, 8, 40),
            Layer.dense(rng.random((500, 40)) < 0.2, rng.random((2, 500)) < 0.5, name="dense"),
            Layer.dense(rng.random((64, 20)) < 0.2, rng.random((2, 9, 64)) < 0.5, name="positions"),
        ],
    )
    if masks is not None:
        with np.load(masks) as file:
            names = [name.removesuffix("_weights") for name in file.files if name.endswith("_weights")]
            yield (
                "masks",
                [
                    Layer.conv(file[f"{name}_weights"], file[f"{name}_activations"][None], name=name, padding="VALID")
                    for name in names
                ],
            )


if __name__ == "__main__":
    sys.exit(main())
