#!/usr/bin/env python3
"""Measures how fast counting is: `.venv/bin/python scripts/benchmark.py [--only STEP ...] [--yardstick limit.c]`.

Everything is a median of several runs, and what is compared was run in turns, so that a busy machine slows all of it.
Prints tables and writes results.json beside them. `--yardstick` compiles a C program with the machine's compiler and
compares with the seconds that it prints last; it is given the number of threads.
"""

import argparse
import collections
import dataclasses
import functools
import json
import os
import pathlib
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import benchmark_baselines
import benchmark_proxy
import benchmark_tables

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
CONVOLUTIONS = "vgg16 convolutions"


def main() -> None:
    """Runs all measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--yardstick", type=pathlib.Path, help="a C program that prints its seconds last")
    parser.add_argument("--repeats", type=int, default=7, help="runs of which the median is taken (default 7)")
    parser.add_argument("--size", type=int, default=224, help="side of the input picture (default 224)")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="what to measure (default: everything)")
    parser.add_argument("--output", type=pathlib.Path, help="directory for results.json; by default below outputs/")
    parser.add_argument("--child", choices=CHILDREN, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.repeats < 1:
        parser.error(f"--repeats must be at least 1, got {arguments.repeats}")
    if arguments.yardstick and not arguments.yardstick.is_file():
        parser.error(f"--yardstick must be a C file, got {arguments.yardstick}")
    if arguments.child:
        print(json.dumps(CHILDREN[arguments.child](arguments.size) | {"peak_bytes": peak_bytes()}))
        return

    from rich.progress import Progress

    from experiments.harness import provenance
    from experiments.harness.files import write_json
    from phantom_jax import Phantom2D

    networks = functools.cache(functools.partial(load_networks, arguments.size))
    yardstick = compile_yardstick(arguments.yardstick) if arguments.yardstick else None
    measure = functools.partial(medians, repeats=arguments.repeats)
    steps: dict[str, Callable[[], Any]] = {
        "networks": lambda: measure_networks(networks(), yardstick, measure),
        "layers": lambda: measure_layers(networks(), measure),
        "architectures": lambda: measure_architectures(networks(), measure),
        "images": lambda: measure_images(arguments.size, measure),
        "patterns": lambda: measure_patterns(networks()[CONVOLUTIONS], measure),
        "reference": lambda: measure_reference(measure),
        "start": lambda: measure_start(arguments.size),
        "devices": lambda: measure_devices(arguments.size),
        "penalty": lambda: benchmark_proxy.measure_penalty(measure),
        "proxy": lambda: child("convolutions", arguments.size, PHANTOM_JAX_CACHE="off"),
        "baselines": lambda: child("baselines", arguments.size),
    }
    chosen = arguments.only or list(steps)
    if unknown := [name for name in chosen if name not in steps]:
        parser.error(f"--only must name steps of {', '.join(steps)}, got {', '.join(unknown)}")
    directory = arguments.output or ROOT / "outputs" / time.strftime("benchmark-%Y-%m-%d-%H-%M-%S")
    directory.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {"schema_version": 1, "machine": machine(), **provenance.versions()}
    results |= {"architecture": dataclasses.asdict(Phantom2D()), "repeats": arguments.repeats, "size": arguments.size}
    with Progress(transient=True) as bar:
        for name in bar.track(chosen, description="Measuring"):
            results[name] = steps[name]()
    write_json(directory / "results.json", results)
    benchmark_tables.show(results)
    print(directory)


def machine() -> dict[str, Any]:
    """Returns what the figures were taken on."""
    import jax

    return {"cores": os.cpu_count(), "devices": [str(device.device_kind) for device in jax.devices()]}


def medians(repeats: int, **runs: Callable[[], Any]) -> dict[str, float]:
    """Returns the median seconds of each run; all are run once to warm up, and then in turns.

    A run that returns a float has measured itself.
    """
    seconds = collections.defaultdict(list)
    for turn in range(repeats + 1):
        for name, run in runs.items():
            begin = time.perf_counter()
            own = run()
            if turn > 0:
                seconds[name].append(own if isinstance(own, float) else time.perf_counter() - begin)
    return {name: statistics.median(taken) for name, taken in seconds.items()}


def load_networks(size: int) -> dict[str, list]:
    """Returns the layers of the networks, masks drawn, at the default densities."""
    from phantom_jax import workloads

    networks = {
        name: list(workloads.SyntheticWorkload(workloads.NETWORKS[name](size=size), seed=0))
        for name in ("vgg16", "mobilenet_v1", "resnet50")
    }
    return {CONVOLUTIONS: [layer for layer in networks["vgg16"] if layer.is_conv], **networks}


def compile_yardstick(source: pathlib.Path) -> Callable[[], float]:
    """Compiles the C program; the result runs it and returns the seconds that it prints."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise SystemExit("--yardstick needs a C compiler (cc, gcc or clang), and none was found.")
    folder = tempfile.TemporaryDirectory()  # is removed with the function below
    program = pathlib.Path(folder.name) / "yardstick"
    subprocess.run([compiler, "-O3", "-march=native", "-o", program, source, "-lpthread"], check=True)

    def run(folder: tempfile.TemporaryDirectory = folder) -> float:
        done = subprocess.run([program, str(os.cpu_count())], capture_output=True, text=True, check=True)
        return float(done.stdout.split()[-1])

    return run


def dense_macs(layers: list) -> int:
    """Returns the dense MACs of layers, over all images."""
    return sum(layer.batch * layer.positions * layer.reduction * layer.filters for layer in layers)


def measure_networks(networks: dict[str, list], yardstick: Callable[[], float] | None, measure: Callable) -> dict:
    """Whole networks, warm, each in turns with the C program."""
    from phantom_jax import Phantom2D, simulate

    results: dict[str, dict] = {}
    for name, layers in networks.items():
        runs: dict[str, Callable] = {"simulate": functools.partial(simulate, layers, Phantom2D())}
        if yardstick:
            runs["yardstick"] = yardstick
        seconds = measure(**runs)
        results[name] = {
            "seconds": seconds["simulate"],
            "dense_macs_per_second": dense_macs(layers) / seconds["simulate"],
            "yardstick_seconds": seconds.get("yardstick"),
            "of_yardstick": seconds["simulate"] / seconds["yardstick"] if yardstick else None,
        }
    return results


def measure_layers(networks: dict[str, list], measure: Callable) -> dict:
    """Each layer alone, warm."""
    from phantom_jax import Phantom2D, simulate

    results: dict[str, dict] = {}
    for name, layers in networks.items():
        if name == CONVOLUTIONS:
            continue
        seconds = measure(**{layer.name: functools.partial(simulate, layer, Phantom2D()) for layer in layers})
        results[name] = {
            layer.name: {
                "seconds": seconds[layer.name],
                "dense_macs_per_second": dense_macs([layer]) / seconds[layer.name],
            }
            for layer in layers
        }
    return results


def measure_architectures(networks: dict[str, list], measure: Callable) -> dict:
    """Other architectures on the middle layers of VGG16, relative to the default, with the first run of each."""
    from phantom_jax import Phantom2D, simulate

    layers = [layer for layer in networks["vgg16"] if layer.name in ("conv3_2", "conv4_2")]
    archs = {
        "default (L = 27, out of order)": Phantom2D(),
        **{f"L = {lookahead}": Phantom2D(lookahead=lookahead) for lookahead in (1, 9, 18, 32, 33, 48, 64)},
        **{f"L = {length}, in order": Phantom2D(lookahead=length, selector="in_order") for length in (9, 27, 64)},
        "no rotation": Phantom2D(intra_balance=False),
        "L = 27, P = 2, T = 4 (by words)": Phantom2D(pes=2, threads=4),
        "L = 27, P = 4, T = 3 (by words)": Phantom2D(pes=4),
    }
    first = {}
    for name, arch in archs.items():
        begin = time.perf_counter()
        simulate(layers, arch)
        first[name] = time.perf_counter() - begin
    seconds = measure(**{name: functools.partial(simulate, layers, arch) for name, arch in archs.items()})
    default = next(iter(seconds.values()))
    return {
        name: {"seconds": taken, "of_default": taken / default, "first_seconds": first[name]}
        for name, taken in seconds.items()
    }


def measure_images(size: int, measure: Callable) -> dict:
    """Growth with the images of a batch, on VGG16's convolutions."""
    from phantom_jax import Phantom2D, simulate, workloads

    batches = {}
    for images in (1, 2, 4, 8):
        workload = workloads.SyntheticWorkload(workloads.vgg16(size=size), seed=0, images=images)
        batches[str(images)] = [layer for layer in workload if layer.is_conv]
    runs = {name: functools.partial(simulate, layers, Phantom2D()) for name, layers in batches.items()}
    seconds = measure(**runs)
    return {
        images: {"seconds": taken, "per_image_of_one": taken / int(images) / seconds["1"]}
        for images, taken in seconds.items()
    }


def measure_patterns(layers: list, measure: Callable) -> dict:
    """Every kernel pattern of every chunk (512 filters), relative to the layers themselves per 512 filters."""
    import numpy as np

    from phantom_jax import Layer, Phantom2D, simulate

    slots = Phantom2D().slots

    def patterns(layer: Any) -> Any:
        *kernel, channels, _ = layer.weights.shape
        element = np.arange(layer.reduction).reshape(channels, *kernel[::-1])  # along the reduction axis
        element = element.transpose(*range(len(kernel), 0, -1), 0)
        weights = (np.arange(1 << slots) >> (element % slots)[..., None] & 1).astype(bool)
        return Layer.conv(weights, layer.activations, layer.strides, layer.padding, name=layer.name)

    tables = [patterns(layer) for layer in layers]
    runs = {f"table {layer.name}": functools.partial(simulate, layer, Phantom2D()) for layer in tables}
    runs |= {f"layer {layer.name}": functools.partial(simulate, layer, Phantom2D()) for layer in layers}
    seconds = measure(**runs)
    table = sum(taken for name, taken in seconds.items() if name.startswith("table"))
    per_512 = sum(seconds[f"layer {layer.name}"] * (1 << slots) / layer.filters for layer in layers)
    return {"seconds": table, "layers_per_512_filters_seconds": per_512, "ratio": table / per_512}


def measure_reference(measure: Callable) -> dict:
    """The scalar reference of the tests on a small layer."""
    import numpy as np

    from phantom_jax import Layer, Phantom2D, simulate
    from tests import cases
    from tests.reference import scalar

    rng = np.random.default_rng(0)
    layer = Layer.conv(rng.random((3, 3, 16, 16)) < 0.4, rng.random((1, 28, 28, 16)) < 0.5)
    problem, twin = cases.problem(layer, 0), cases.twin(Phantom2D())
    seconds = measure(reference=lambda: [scalar.simulate(problem, twin)], simulate=lambda: simulate(layer, Phantom2D()))
    return {
        "reference_macs_per_second": dense_macs([layer]) / seconds["reference"],
        "simulate_macs_per_second": dense_macs([layer]) / seconds["simulate"],
        "ratio": seconds["reference"] / seconds["simulate"],
    }


def start(size: int) -> dict:
    """Counts VGG16 twice in this process, which has done nothing else, and reports the times."""
    begin = time.perf_counter()
    import jax

    from phantom_jax import Phantom2D, simulate, workloads

    compilations, hits = [], []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, duration_secs, **_: compilations.append(duration_secs) if "backend_compile" in event else None
    )
    jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if "cache_hits" in event else None)
    jax.devices()
    imported = time.perf_counter()
    layers = list(workloads.SyntheticWorkload(workloads.vgg16(size=size), seed=0))
    drawn = time.perf_counter()
    simulate(layers, Phantom2D())
    first = time.perf_counter()
    compiled = len(compilations), sum(compilations), len(hits)
    warm = []
    for _ in range(5):
        again = time.perf_counter()
        simulate(layers, Phantom2D())
        warm.append(time.perf_counter() - again)
    return {
        "import_seconds": imported - begin,
        "masks_seconds": drawn - imported,
        "first_seconds": first - drawn,
        "warm_seconds": statistics.median(warm),
        "compilations": compiled[0] - compiled[2],
        "compile_seconds": compiled[1],
        "from_cache": compiled[2],
    }


def peak_bytes() -> int:
    """Returns the most memory that this process has held."""
    try:  # the kernel's own count starts anew with the program, which getrusage does not
        status = pathlib.Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


CHILDREN = {
    "start": start,
    "convolutions": benchmark_proxy.convolutions,
    "baselines": benchmark_baselines.baselines,
}


def child(name: str, size: int, **environment: str) -> dict:
    """Runs one of `CHILDREN` in its own process, which reports its peak memory, too."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", name, "--size", str(size)],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def measure_start(size: int) -> dict:
    """Fresh processes: with an empty compilation cache, and with a filled one."""
    with tempfile.TemporaryDirectory() as cache:
        return {name: child("start", size, PHANTOM_JAX_CACHE=cache) for name in ("empty cache", "filled cache")}


def measure_devices(size: int) -> dict:
    """VGG16 on several devices, which are all this machine's cores pretending."""
    flag = "--xla_force_host_platform_device_count="
    return {
        str(count): child("start", size, XLA_FLAGS=f"{flag}{count}", PHANTOM_JAX_CACHE="off") for count in (1, 2, 4, 8)
    }


if __name__ == "__main__":
    main()
