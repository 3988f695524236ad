"""What weights meet in a network, differentiably: the left operands of its contractions, beside its outputs."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from phantom_jax.tracing.contractions import CONTRACTIONS, Contraction, activations_of
from phantom_jax.tracing.interpreter import CALLS, Interpreter, Place, bind, contractions_within
from phantom_jax.tracing.origins import Operand, Origin, derived, is_floating
from phantom_jax.tracing.traced import KeyPath


def read_inputs(
    fn: Callable[[Mapping[str, jax.Array]], Any], weights: Mapping[str, jax.Array]
) -> tuple[Any, dict[str, jax.Array]]:
    """Runs `fn(weights)` and returns what is contracted with each array of weights, which is what its layer reads.

    Unlike `trace`, it works inside of `jit` and `grad`, and the result can be differentiated. Contractions are found as
    there, but for those in a `cond` or a `scan`.

    Args:
        fn: A function of arrays.
        weights: By layer.

    Returns:
        What `fn` returned; and by layer, `[B, *spatial, Cin]` for a convolution, `[..., Cin]` for a dense layer.

    Raises:
        ValueError: What a layer reads is not found.
    """
    jaxpr, shapes = jax.make_jaxpr(fn, return_shape=True)(weights)
    flat, _ = jax.tree_util.tree_flatten_with_path(weights)
    reader = _Reader()
    results = reader.run(jaxpr, [Operand(array, Origin(path, is_floating(array))) for path, array in flat], Place())
    inputs = {path[0].key: array for path, array in reader.found.items()}
    for name in weights:
        if name not in inputs:
            raise ValueError(
                f"fn must contract the weights of {name} outside of conditions and scans, so that what they meet can "
                "be seen; no such contraction was found."
            )
    return jax.tree.unflatten(jax.tree.structure(shapes), [result.array for result in results]), inputs


class _Reader(Interpreter):
    """Evaluates a jaxpr on values that may be traced, and keeps what weights meet."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[KeyPath, jax.Array] = {}

    def evaluate(self, equation: Any, inputs: list[Operand], place: Place) -> list[Operand]:
        """Returns the results of an equation."""
        name, params = equation.primitive.name, equation.params
        contracts = name in CONTRACTIONS or any(True for _ in contractions_within(params, ()))
        if name in CALLS and contracts:
            results = super().evaluate(equation, inputs, place)
            if not name.startswith("custom"):
                return results  # else what is inside has been seen, but the derivative is its own
        if name in CONTRACTIONS:
            self._find(equation, inputs)
        results = bind(equation, inputs)
        if contracts or name not in CALLS:
            return results
        avals, origins = [atom.aval for atom in equation.invars], [operand.origin for operand in inputs]
        return [
            result._replace(origin=derived(avals, origins, atom.aval))
            for result, atom in zip(results, equation.outvars, strict=True)
        ]

    def _find(self, equation: Any, inputs: list[Operand]) -> None:
        contraction = Contraction.of(equation.primitive.name, equation.params, inputs)
        for side in (contraction, contraction.swapped()):
            if side.right.origin is not None and side.right.origin.path is not None:
                self.found[side.right.origin.path] = activations_of(side, side.left.array)
                return
