"""Work on every device and every core: tiles of one shape, handed out by threads.

XLA runs one tile on one core, so several tiles are in flight at a time, and their arrays are put together and taken
apart by the threads that wait for them. On a machine with several devices, each call carries a tile for each of them.
"""

import concurrent.futures
import functools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from phantom_jax.promotion import promotion

Tile = TypeVar("Tile")
Result = TypeVar("Result")

WORKERS = os.cpu_count() or 1


def run_tiles(
    kernel: Callable[..., Any],
    tiles: Iterable[Tile],
    fill: Callable[[Tile], tuple[np.ndarray, ...]],
    finish: Callable[[Tile, Any], Result],
) -> Iterator[Result]:
    """Runs a kernel over tiles and yields what `finish` makes of each, in order.

    Args:
        kernel: What `compiled` returned.
        tiles: What names each tile.
        fill: Makes the kernel's arguments for a tile; arrays of the same shapes for every tile.
        finish: Makes the result of a tile from the kernel's outputs. As `fill`, it is called in several threads.
    """
    devices = jax.device_count()

    def run(batch: list[Tile]) -> list[Result]:
        arguments = [fill(tile) for tile in batch]
        if devices == 1:
            return [finish(batch[0], jax.tree.map(np.asarray, kernel(*arguments[0])))]
        blank = tuple(np.zeros_like(argument) for argument in arguments[0])
        arguments += [blank] * (devices - len(arguments))
        outputs = jax.tree.map(np.asarray, kernel(*map(np.stack, zip(*arguments, strict=True))))
        return [
            finish(tile, jax.tree.map(lambda output: output[index], outputs))  # noqa: B023
            for index, tile in enumerate(batch)
        ]

    for results in _in_order(_pool(), run, batches(tiles, devices), 2 * WORKERS):  # keeps the tiles in flight few
        yield from results


def compiled(kernel: Callable[..., Any], bitwise: bool = False, **options: Any) -> Callable[..., Any]:
    """Returns a kernel compiled for the available devices, once per process and set of options.

    Where there are several devices, it takes and returns arrays with a leading axis of one entry per device. A
    `bitwise` kernel has words of 64 bits and, on CPUs, the widest vectors, which XLA does not choose by itself.
    """
    function = _compiled(kernel, bitwise, tuple(sorted(options.items())), tuple(jax.devices()))

    def call(*arguments: np.ndarray) -> Any:
        with jax.enable_x64(bitwise), promotion():  # in the thread that calls
            return function(*arguments)

    return call


@functools.cache
def _compiled(
    kernel: Callable, bitwise: bool, options: tuple[tuple[str, Any], ...], devices: tuple[Any, ...]
) -> Callable:
    one_tile = functools.partial(kernel, **dict(options))
    compiler_options = {"xla_cpu_prefer_vector_width": 512} if bitwise and devices[0].platform == "cpu" else None
    if len(devices) == 1:
        return jax.jit(one_tile, compiler_options=compiler_options)

    def tile_of_device(*arguments: jax.Array) -> Any:
        return jax.tree.map(lambda output: output[None], one_tile(*(argument[0] for argument in arguments)))

    along = PartitionSpec("devices")
    mesh = Mesh(np.array(devices), ("devices",))
    sharded = jax.shard_map(tile_of_device, mesh=mesh, in_specs=along, out_specs=along, check_vma=False)
    return jax.jit(sharded, compiler_options=compiler_options)


def overlapped(function: Callable[[Tile], Result], items: Iterable[Tile]) -> Iterator[Result]:
    """Yields `function(item)` in order, with later items prepared while the tiles of one are counted.

    No more than three items are in the works, which bounds the memory that they take.
    """
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        yield from _in_order(pool, function, items, 2)


def _in_order(
    pool: concurrent.futures.Executor, function: Callable[[Tile], Result], items: Iterable[Tile], ahead: int
) -> Iterator[Result]:
    """Yields `function(item)` in order, with at most `ahead` later items begun."""
    pending: list[concurrent.futures.Future] = []
    try:
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > ahead:
                yield pending.pop(0).result()
        for future in pending:
            yield future.result()
    finally:
        for future in pending:
            future.cancel()


def batches(tiles: Iterable[Tile], size: int) -> Iterator[list[Tile]]:
    """Yields tiles in groups of `size`, the last one smaller."""
    batch: list[Tile] = []
    for tile in tiles:
        batch.append(tile)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


@functools.cache
def _pool() -> concurrent.futures.ThreadPoolExecutor:
    return concurrent.futures.ThreadPoolExecutor(WORKERS, thread_name_prefix="phantom_jax")
