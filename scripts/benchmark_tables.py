"""Prints the tables of scripts/benchmark.py, which imports it."""

from collections.abc import Callable
from typing import Any


def show(results: dict[str, Any]) -> None:
    """Prints the tables of what was measured."""
    from rich.console import Console
    from rich.table import Table

    console = Console()

    def table(title: str, rows: dict[str, dict], **columns: tuple[str, Callable[[Any], str]]) -> None:
        if not rows:
            return
        shown = Table(title=title, title_justify="left")
        shown.add_column("")
        for heading, _ in columns.values():
            shown.add_column(heading, justify="right")
        for name, row in rows.items():
            cells = [row.get(key) for key in columns]
            formats = [form for _, form in columns.values()]
            shown.add_row(
                name, *("" if cell is None else form(cell) for cell, form in zip(cells, formats, strict=True))
            )
        console.print(shown)

    milliseconds = ("ms", lambda seconds: f"{1e3 * seconds:.1f}")
    giga = ("dense GMAC/s", lambda rate: f"{rate / 1e9:.1f}")
    ratio = lambda heading: (heading, lambda value: f"{value:.2f}x")  # noqa: E731
    table(
        "Networks, warm, one image",
        results.get("networks", {}),
        seconds=milliseconds,
        dense_macs_per_second=giga,
        yardstick_seconds=("yardstick, ms", milliseconds[1]),
        of_yardstick=ratio("of yardstick"),
    )
    for name, layers in results.get("layers", {}).items():
        table(f"Layers of {name}, each alone", layers, seconds=milliseconds, dense_macs_per_second=giga)
    table(
        "Architectures (VGG16 conv3_2 and conv4_2)",
        results.get("architectures", {}),
        seconds=milliseconds,
        of_default=ratio("of default"),
        first_seconds=("first run, ms", milliseconds[1]),
    )
    table(
        "Images per batch (VGG16's convolutions)",
        results.get("images", {}),
        seconds=milliseconds,
        per_image_of_one=ratio("per image, of one"),
    )
    starts = {
        "import_seconds": ("imports, ms", milliseconds[1]),
        "masks_seconds": ("masks, ms", milliseconds[1]),
        "first_seconds": ("first run, ms", milliseconds[1]),
        "warm_seconds": ("warm, ms", milliseconds[1]),
        "compilations": ("compiled", str),
        "from_cache": ("from cache", str),
        "peak_bytes": ("peak, MB", lambda size: f"{size / 1e6:.0f}"),
    }
    table("Fresh processes (VGG16)", results.get("start", {}), **starts)
    table("Devices, all the same cores (VGG16)", results.get("devices", {}), **starts)
    table(
        "Expected cycles of a small CNN, beside its training step at batch 64",
        results.get("penalty", {}),
        seconds=milliseconds,
        of_step=ratio("of step"),
        first_seconds=("first run, ms", milliseconds[1]),
    )
    proxy = {
        "first_calibration_seconds": ("first calibration, ms", milliseconds[1]),
        "calibration_seconds": ("calibration, ms", milliseconds[1]),
        "first_seconds": ("first value and gradient, ms", milliseconds[1]),
        "seconds": ("value and gradient, ms", milliseconds[1]),
        "peak_bytes": starts["peak_bytes"],
    }
    fresh = {"": results["proxy"]} if "proxy" in results else {}
    table("Expected cycles of VGG16's convolutions, fresh process without a cache", fresh, **proxy)
    if baselines := results.get("baselines"):
        table(
            f"Baselines, once: {baselines['total_seconds']:.1f} s, at most {baselines['peak_bytes'] / 1e6:.0f} MB",
            baselines["designs"],
            vgg16_seconds=("vgg16, ms", milliseconds[1]),
            mobilenet_v1_seconds=("mobilenet_v1, ms", milliseconds[1]),
        )
    if patterns := results.get("patterns"):
        console.print(
            f"Pattern tables of VGG16's convolutions: {patterns['seconds']:.2f} s, "
            f"{patterns['ratio']:.2f}x of the layers per 512 filters."
        )
    if reference := results.get("reference"):
        console.print(f"Scalar reference on a small layer: {reference['ratio']:.0f}x slower.")
