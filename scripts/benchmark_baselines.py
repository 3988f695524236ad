"""Measures how fast the baselines are; a part of scripts/benchmark.py, which imports it."""

import time


def baselines(size: int) -> dict:
    """Each design at its published size, on VGG16's and MobileNetV1's layers, masks drawn; runs in its own process."""
    from phantom_jax import Phantom2D, workloads
    from phantom_jax.baselines import SCNN, Dense, EyerissV2, SparTen

    designs = {
        "Dense, ideal": Dense(),
        "Dense, mapped": Dense(arch=Phantom2D()),
        "SCNN": SCNN(),
        "SparTen": SparTen(),
        "EyerissV2": EyerissV2(),
    }
    layers = {
        name: list(workloads.SyntheticWorkload(workloads.NETWORKS[name](size=size), seed=0))
        for name in ("vgg16", "mobilenet_v1")
    }
    seconds: dict[str, dict[str, float]] = {}
    for design, model in designs.items():
        for network, of in layers.items():
            begin = time.perf_counter()
            model.simulate(of)
            seconds.setdefault(design, {})[f"{network}_seconds"] = time.perf_counter() - begin
    return {"designs": seconds, "total_seconds": sum(sum(row.values()) for row in seconds.values())}
