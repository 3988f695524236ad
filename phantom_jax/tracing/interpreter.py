"""Runs a JAX function equation by equation, and keeps the masks of what it contracts."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import Literal, jaxprs_in_params

from phantom_jax.tracing.contractions import CONTRACTIONS, NotALayerError, to_layer
from phantom_jax.tracing.origins import MIXED, Origin, derived, is_floating, name_of, scopes_of
from phantom_jax.tracing.traced import Findings, Traced

# Primitives that do no more than call a jaxpr, and the parameters that hold it. JAX changes these names over time.
CALLS = {
    "jit": ("jaxpr",),
    "closed_call": ("call_jaxpr",),
    "call": ("call_jaxpr",),
    "eval_jaxpr": ("jaxpr", "call_jaxpr"),
    "remat2": ("jaxpr",),
    "custom_jvp_call": ("call_jaxpr",),
    "custom_vjp_call": ("call_jaxpr",),
    "custom_vmap_call": ("call",),
    "composite": ("jaxpr",),
}


# Primitives that run what JAX does not see into.
_OPAQUE = ("call_exported", "pure_callback", "io_callback", "ffi_call")


def trace(fn: Callable[..., Any], *args: Any) -> Traced:
    """Runs `fn(*args)` and returns the layers that it ran: boolean masks of its convolutions and dense products.

    Each `conv_general_dilated`, of any layout, makes a layer, and so does each `dot_general` without batch axes. *The
    right operand is the weights*, so `x @ w` reads `w` as weights, and `w @ x` reads `x` as weights. The left operand
    of a `dot_general` gives the activations: its first free axis is the images B, the others are flattened to
    positions Q; without any, B is 1. Contracted axes are flattened to channels, the right operand's free axes to
    filters (a vector on the right makes one filter). `jax.vmap` over the first axis of images makes that axis B.

    Calls (`jit`, `checkpoint`, custom derivatives, ...) are looked into, `cond` takes the branch that runs, and each
    step of a `scan` gives layers of its own. What makes no layer is listed in `skipped` and in a warning:
    contractions with batch axes, as in attention; those that `Layer` refuses; those in a `while` loop or another
    primitive that is run as a whole, such as `pallas_call`; calls of what JAX cannot see into, such as callbacks.

    Sources are key paths in the pytree `(fn, *args)`: of the one array that a layer's weights are derived from. It
    is followed through all that keeps the number of elements (transposes, reshapes, conversions, selections, products
    with constants, masks, or what is broadcast), also inside of calls. If two arrays of as many elements mix, it is
    that of a floating type (so the kernel, rather than its mask), and None if both are. It is None too for what a
    contraction made, for constants of `fn`, and for slices of an array, such as weights that a scan runs over.

    Names are unique, and come from the source's path (`features.0` for `model.features[0].kernel`), else from
    `jax.named_scope`, else from the line of code (`function:line`). Step `i` of a scan appends `[i]`, the second layer
    of a name `#2`.

    Args:
        fn: Any callable of arrays. If it is a pytree too (a `flax.nnx.Module`), its arrays are inputs, and it is not
            changed: what it updates (batch statistics) is lost.
        *args: Its arguments: pytrees of concrete arrays and numbers, which become JAX arrays as under `jax.jit`.

    Returns:
        A sequence of layers. Its `outputs` are those of `fn(*args)` under `jax.disable_jit()`, bit by bit; only `while`
        loops, and scans of no step, run compiled.

    Raises:
        ValueError: `fn` cannot be called, an argument is not an array or is traced, or an operand of a layer holds NaN.
    """
    if not callable(fn):
        raise ValueError(f"fn must be callable, got {fn!r}.")
    paths_and_leaves, structure = jax.tree_util.tree_flatten_with_path((fn, *args))
    leaves = [leaf for _, leaf in paths_and_leaves]
    inputs: dict[int, Operand] = {}
    if isinstance(jnp.zeros(()), Tracer):
        raise ValueError("trace must be called outside of jit: within, JAX computes no values.")
    for position, (path, leaf) in enumerate(paths_and_leaves):
        # What fn holds beside arrays is part of the function: activation functions, say.
        if path[0].idx > 0 or isinstance(leaf, (jax.Array, np.ndarray)):
            array = _array(_argument(path), leaf)
            inputs[position] = Operand(array, Origin(path, is_floating(array)))

    def run(*arrays: Any) -> Any:
        filled = leaves.copy()
        for position, array in zip(inputs, arrays, strict=True):
            filled[position] = array
        function, *arguments = jax.tree_util.tree_unflatten(structure, filled)
        return function(*arguments)

    jaxpr, shapes = jax.make_jaxpr(run, return_shape=True)(*(operand.array for operand in inputs.values()))
    for constant in jaxpr.consts:
        _check_concrete("what fn refers to", constant)
    interpreter = Interpreter()
    results = interpreter.run(jaxpr, list(inputs.values()), Place())
    flat, form = jax.tree.flatten(shapes)
    outputs = [
        result.array if isinstance(result.array, jax.Array) else jnp.asarray(result.array, aval.dtype)
        for result, aval in zip(results, flat, strict=True)
    ]
    return interpreter.findings.traced(jax.tree.unflatten(form, outputs))


class Operand(NamedTuple):
    """A value, and where it comes from."""

    array: Any
    origin: Origin | None = None


class Place(NamedTuple):
    """Where an equation is."""

    scopes: tuple[str, ...] = ()
    steps: str = ""  # of the scans around, outermost first: "[2][0]"


class Interpreter:
    """Evaluates jaxprs on concrete values, each equation once."""

    def __init__(self) -> None:
        self.findings = Findings()

    def run(self, jaxpr: Any, operands: Sequence[Operand], place: Place) -> list[Operand]:
        """Returns the results of a jaxpr; a value is let go of once it has had its last use."""
        body = getattr(jaxpr, "jaxpr", jaxpr)  # older versions of JAX have closed and open ones
        constants = [Operand(value) for value in getattr(jaxpr, "consts", ())]
        values = dict(zip([*body.constvars, *body.invars], [*constants, *operands], strict=True))
        last_use = {
            atom: index
            for index, atoms in enumerate([*(equation.invars for equation in body.eqns), body.outvars])
            for atom in atoms
            if not isinstance(atom, Literal)
        }
        for index, equation in enumerate(body.eqns):
            inputs = [_read(values, atom) for atom in equation.invars]
            for atom in equation.invars:
                if not isinstance(atom, Literal) and last_use[atom] == index:
                    values.pop(atom, None)
            results = self.evaluate(equation, inputs, place)
            values |= {atom: result for atom, result in zip(equation.outvars, results, strict=True) if atom in last_use}
        return [_read(values, atom) for atom in body.outvars]

    def evaluate(self, equation: Any, inputs: list[Operand], place: Place) -> list[Operand]:
        """Returns the results of an equation, and takes note of what it contracts."""
        name, params = equation.primitive.name, equation.params
        inner = place._replace(scopes=place.scopes + scopes_of(equation.source_info))
        if name in CALLS:
            called = next(params[key] for key in CALLS[name] if key in params)
            return self.run(called, inputs, inner)
        if name == "cond":
            index, *operands = inputs
            branches = params["branches"]
            return self.run(branches[np.clip(int(index.array), 0, len(branches) - 1)], operands, inner)
        if name == "scan":
            return self._scan(params, inputs, inner) if params["length"] else bind(equation, inputs)
        if name in CONTRACTIONS:
            self._contract(equation, inputs, inner)
        for within, scopes in contractions_within(params, inner.scopes):
            shapes = [atom.aval.shape for atom in within.invars]
            found = self._name(None, inner._replace(scopes=scopes), within)
            self.findings.skip(within.primitive.name, found, shapes, f"it is inside a {name}, which is run as a whole")
        if name in _OPAQUE:
            shapes = [np.shape(operand.array) for operand in inputs]
            self.findings.skip(name, self._name(None, inner, equation), shapes, "what it contracts cannot be seen")
        return bind(equation, inputs)

    def _contract(self, equation: Any, inputs: list[Operand], place: Place) -> None:
        left, right = inputs[:2]
        source = right.origin.path if right.origin else None
        name = self._name(source, place, equation)
        primitive = equation.primitive.name
        try:
            layer = to_layer(primitive, equation.params, left.array, right.array, name)
        except NotALayerError as error:
            self.findings.skip(primitive, name, [np.shape(operand.array) for operand in inputs], str(error))
        else:
            self.findings.add(layer, source)

    def _scan(self, params: Any, inputs: list[Operand], place: Place) -> list[Operand]:
        if "ft_in" in params:  # from JAX 0.11 on
            constants, carry, stacked = map(list, params["ft_in"].update(inputs).unpack())
        else:
            first, second = params["num_consts"], params["num_consts"] + params["num_carry"]
            constants, carry, stacked = inputs[:first], inputs[first:second], inputs[second:]
        carried, length, rows = len(carry), params["length"], {}
        for step in reversed(range(length)) if params["reverse"] else range(length):
            slices = [Operand(jax.lax.dynamic_index_in_dim(one.array, step, keepdims=False)) for one in stacked]
            there = place._replace(steps=f"{place.steps}[{step}]")
            results = self.run(params["jaxpr"], [*constants, *carry, *slices], there)
            carry, rows[step] = results[:carried], [row.array for row in results[carried:]]
        return [
            *carry,
            *(Operand(jnp.stack(column)) for column in zip(*(rows[i] for i in range(length)), strict=True)),
        ]

    def _name(self, source: Any, place: Place, equation: Any) -> str:
        name = name_of(source, place.scopes, equation.source_info) or equation.primitive.name
        return self.findings.unique(name + place.steps)


def _read(values: dict[Any, Operand], atom: Any) -> Operand:
    return Operand(atom.val) if isinstance(atom, Literal) else values[atom]


def bind(equation: Any, inputs: list[Operand]) -> list[Operand]:
    """Evaluates an equation as JAX does."""
    primitive, params = equation.primitive, equation.params
    with equation.ctx.manager:
        results = primitive.bind(*(operand.array for operand in inputs), **primitive.get_bind_params(params))
    avals = [atom.aval for atom in equation.invars]
    origins = [operand.origin for operand in inputs]
    is_opaque = primitive.name in CONTRACTIONS or any(True for _ in jaxprs_in_params(params))
    return [
        Operand(result, MIXED if is_opaque else derived(avals, origins, atom.aval))
        for result, atom in zip(results if primitive.multiple_results else [results], equation.outvars, strict=True)
    ]


def contractions_within(params: Any, scopes: tuple[str, ...]) -> Iterator[tuple[Any, tuple[str, ...]]]:
    """Yields the contractions in the jaxprs of an equation's parameters, each with its scopes."""
    for jaxpr in jaxprs_in_params(params):
        for equation in jaxpr.eqns:
            inner = scopes + scopes_of(equation.source_info)
            if equation.primitive.name in CONTRACTIONS:
                yield equation, inner
            yield from contractions_within(equation.params, inner)


def _argument(path: Any) -> str:
    """Returns how a user would write a path in (fn, *args)."""
    root = "fn" if path[0].idx == 0 else f"args[{path[0].idx - 1}]"
    return root + jax.tree_util.keystr(path[1:])


def _array(argument: str, value: Any) -> jax.Array:
    """Returns a concrete value as an array of JAX."""
    _check_concrete(argument, value)
    try:
        return jnp.asarray(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(
            f"{argument} must be an array or a number, got {value!r}. (functools.partial binds other arguments to fn.)"
        ) from None


def _check_concrete(argument: str, value: Any) -> None:
    if isinstance(value, Tracer):
        raise ValueError(
            f"{argument} must be concrete, got a traced array of shape {value.shape}: call trace outside of jit, grad "
            "and vmap. (fn itself may hold them.)"
        )
