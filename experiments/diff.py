"""Compares two runs: `python -m experiments.diff A B`, output directories of experiments.simulate or experiments.train.

Layers are matched by name and sorted by how much their cycles changed; beside the cycles stand the shares of the cycle
stack, A then B. Of batches, the means over images are compared.
"""

import argparse
import json
import pathlib
import sys
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from experiments.harness.pipes import readers_may_leave
from experiments.harness.resume import of_options
from phantom_jax.tables import short

_SCHEMA_VERSION = 1
_COMMANDS = "experiments.simulate or experiments.train"
_OF_NO_NUMBER = ("figures",)  # options that no number depends on


def load(directory: str) -> dict[str, Any]:
    """Returns the results of a run.

    Raises:
        ValueError: The directory holds no results of this version.
    """
    path = pathlib.Path(directory)
    path = path if path.suffix == ".json" else path / "results.json"
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{directory} must be an output directory with results.json: {error.strerror}.") from error
    except ValueError as error:
        raise ValueError(f"{path} must be results of {_COMMANDS} in JSON: {error}.") from error
    version = results.get("schema_version") if isinstance(results, dict) else None
    if version != _SCHEMA_VERSION:
        raise ValueError(f"{path} must be results of schema version {_SCHEMA_VERSION}, got version {version}.")
    if "layers" not in results:
        raise ValueError(f"{path} must be results of {_COMMANDS}: it holds no layers, so it is of another command.")
    return results


def compare(first: dict[str, Any], second: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns, per layer of either run, its mean cycles and shares of the stack in both; most changed first.

    What a run lacks is None. The total comes last.
    """
    runs = [{layer["name"]: layer for layer in run["layers"]} for run in (first, second)]
    rows = [_row(name, *(run.get(name) for run in runs)) for name in dict.fromkeys([*runs[0], *runs[1]])]
    rows.sort(key=lambda row: -abs((row["cycles"][1] or 0) - (row["cycles"][0] or 0)))
    return [*rows, _row("total", first["totals"], second["totals"])]


def differing(first: dict[str, Any], second: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Returns what the settings of two runs differ in, by name.

    An option of one run alone is None in the other. What only one of the commands has, such as a workload, is left out.
    """
    settings = [_settings(run) for run in (first, second)]
    groups = [{name.partition(".")[0] for name in of_run} for of_run in settings]
    return {
        name: (settings[0].get(name), settings[1].get(name))
        for name in dict.fromkeys([*settings[0], *settings[1]])
        if name.partition(".")[0] in groups[0] & groups[1] and settings[0].get(name) != settings[1].get(name)
    }


def _settings(run: dict[str, Any]) -> dict[str, Any]:
    """Returns the settings of a run by their full names: its options, and what it says of its masks or data."""
    known = {name: run[name] for name in ("seed", "workload", "data_sha256") if name in run}
    return of_options({**run.get("settings", {}), "arch": run["architecture"], **known}, _OF_NO_NUMBER)


def _row(name: str, *layers: dict[str, Any] | None) -> dict[str, Any]:
    cycles = [None if layer is None else sum(layer["cycles"]) / len(layer["cycles"]) for layer in layers]
    thread_slots = [
        {} if layer is None else {part: sum(counts) for part, counts in layer["stack"].items()} for layer in layers
    ]
    totals = [sum(parts.values()) for parts in thread_slots]
    shares = {
        component: [
            parts[component] / total if total and component in parts else None
            for parts, total in zip(thread_slots, totals, strict=True)
        ]
        for component in dict.fromkeys([*thread_slots[0], *thread_slots[1]])
    }
    return {"name": name, "cycles": cycles, "shares": shares}


def table(rows: list[dict[str, Any]]) -> Table:
    """Returns the comparison as a table."""
    components = list(dict.fromkeys(component for row in rows for component in row["shares"]))
    shown = Table(title="Cycles, and shares of the cycle stack in per cent: A > B", title_justify="left", box=None)
    shown.add_column("layer", no_wrap=True)
    for header in ("A", "B", "B / A", *components):
        shown.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        first, second = row["cycles"]
        ratio = f"{second / first:.3f}" if first and second is not None else "-"
        cells = (
            " > ".join(_text(share, 100, ".1f") for share in row["shares"].get(c, (None, None))) for c in components
        )
        style = "bold" if row is rows[-1] else None
        name = Text(short(row["name"]))
        shown.add_row(name, _text(first, 1, ",.0f"), _text(second, 1, ",.0f"), ratio, *cells, style=style)
    return shown


def _text(value: float | None, factor: int, pattern: str) -> str:
    return "-" if value is None else format(factor * value, pattern)


@readers_may_leave()
def main(arguments: list[str] | None = None) -> None:
    """Prints the comparison of two runs."""
    parser = argparse.ArgumentParser(prog="python -m experiments.diff", description=__doc__)
    parser.add_argument("A", help="output directory of the first run")
    parser.add_argument("B", help="output directory of the second run")
    named = parser.parse_args(arguments)
    try:
        first, second = load(named.A), load(named.B)
        rows, differences = compare(first, second), differing(first, second)
    except ValueError as error:
        sys.exit(f"Error: {error}")
    except (KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        sys.exit(f"Error: {named.A} and {named.B} must hold whole results of a run: {type(error).__name__} {error}.")
    console = Console()
    for label, directory, index in (("A", named.A, 0), ("B", named.B, 1)):
        settings = ", ".join(f"{key}={values[index]}" for key, values in differences.items())
        console.print(
            f"{label}: {directory}" + (f": {settings}" if settings else ""),
            soft_wrap=True,
            highlight=False,
            markup=False,
        )
    shown = table(rows)
    console.width = max(console.width, Measurement.get(console, console.options.update(max_width=1000), shown).maximum)
    console.print(shown)


if __name__ == "__main__":
    main()
