"""Runs a JAX function equation by equation, and keeps the masks of what it contracts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.extend.core import Literal, jaxprs_in_params
from jax.tree_util import treedef_is_leaf

from phantom_jax.tracing.axes import images_after
from phantom_jax.tracing.contractions import CONTRACTIONS, Contraction, NotALayerError
from phantom_jax.tracing.images import Batch, merged
from phantom_jax.tracing.origins import (
    INDICES,
    MIXED,
    PARAMETERS,
    Operand,
    Origin,
    derived,
    is_floating,
    name_of,
    scopes_of,
    union,
)
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
_SOLVERS = ("triangular_solve", "tridiagonal_solve", "cholesky", "lu", "householder_product", "geqrf", "qr", "eig")
# What else contracts, and the reason why it makes no layer.
_UNREAD = {
    **dict.fromkeys(_OPAQUE, "what it contracts cannot be seen"),
    "fft": "it contracts without weights; what follows multiplies in frequency",
    **dict.fromkeys((*_SOLVERS, "eigh", "svd", "schur", "hessenberg"), "it factors or solves; it has no weights"),
}


def trace(
    fn: Callable[..., Any],
    *args: Any,
    weight_argnums: int | Sequence[int] | None = None,
    batch: int | Mapping[str, int] | None = None,
) -> Traced:
    """Runs `fn(*args)` and returns the layers that it ran: boolean masks of its convolutions and dense products.

    Weights are what derives from parameters alone: from arrays that `fn` holds or closes over, from constants, and from
    arguments that count as weights. Activations are what derives from the other arguments. Each `conv_general_dilated`
    of activations with weights makes a layer, of any layout. So does each `dot_general` without batch axes, with the
    weights on either side (`x @ w`, `w @ x`), also of sparse matrices (`jax.experimental.sparse`). Contracted axes are
    flattened to channels, the free axes of weights to filters (a vector makes one filter). Of the free axes of
    activations, one holds the images B, and the others are flattened to positions Q; without any, B is 1.

    The images lie along the first axis of the inputs, or of the activations of the convolution before. They are
    followed through transposes, reshapes, and all else that keeps their axis. Where the trail is lost, and where their
    axis is contracted, the first free axis is taken.

    Calls (`jit`, `checkpoint`, custom derivatives, ...) are looked into, `cond` takes the branch that runs, and each
    step of a `scan` gives its own layers. What makes no layer is listed in `skipped` and in a warning: contractions
    of activations with each other, of parameters with each other, and with what the function makes of indices alone
    (resizing, patches); contractions with batch axes, as in attention; those that `Layer` refuses; those in a `while`
    loop or another primitive that is run as a whole, such as `pallas_call`; Fourier transforms and solvers; calls of
    what JAX cannot see into, such as callbacks.

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
        *args: Its arguments: pytrees of concrete arrays and numbers, which become JAX arrays as under `jax.jit`. In
            arguments that count as weights, what is not an array stays as it is. Scalars count as constants.
        weight_argnums: Positions in `args` of those that hold weights. By default these are the arguments that are
            containers (parameters in a dictionary, a module), if `fn` holds no arrays itself and another argument is
            an array. The kernel of a convolution may be an array among `args` too.
        batch: The axis that holds the images: of all inputs; or of single ones, by the names of inputs (`args[1]`, as
            in messages) or of layers, whose activations are meant as they are when contracted.

    Returns:
        A sequence of layers. Its `outputs` are those of `fn(*args)` under `jax.disable_jit()`, bit by bit; only `while`
        loops, and scans of no step, run compiled.

    Raises:
        ValueError: `fn` cannot be called, an argument is not an array or is traced, an operand of a layer holds NaN,
            `weight_argnums` or `batch` does not fit.
    """
    if not callable(fn):
        raise ValueError(f"fn must be callable, got {fn!r}.")
    if isinstance(jnp.zeros(()), Tracer):
        raise ValueError("trace must be called outside of jit: within, JAX computes no values.")
    paths_and_leaves, structure = jax.tree_util.tree_flatten_with_path((fn, *args))
    leaves = [leaf for _, leaf in paths_and_leaves]
    parameters = {0, *(1 + position for position in _weight_positions(fn, args, weight_argnums))}
    axes = Batch(batch)
    inputs: dict[int, Operand] = {}
    for position, (path, leaf) in enumerate(paths_and_leaves):
        index = path[0].idx
        # What fn and parameters hold beside arrays is part of the function: activation functions, say.
        if index not in parameters or _is_array(leaf):
            inputs[position] = _input(path, leaf, index in parameters, axes)

    def run(*arrays: Any) -> Any:
        filled = leaves.copy()
        for position, array in zip(inputs, arrays, strict=True):
            filled[position] = array
        function, *arguments = jax.tree_util.tree_unflatten(structure, filled)
        return function(*arguments)

    jaxpr, shapes = jax.make_jaxpr(run, return_shape=True)(*(operand.array for operand in inputs.values()))
    for constant in jaxpr.consts:
        _check_concrete("what fn refers to", constant)
    interpreter = Interpreter(axes)
    results = interpreter.run(jaxpr, list(inputs.values()), Place())
    axes.check()
    flat, form = jax.tree.flatten(shapes)
    outputs = [
        result.array if isinstance(result.array, jax.Array) else jnp.asarray(result.array, aval.dtype)
        for result, aval in zip(results, flat, strict=True)
    ]
    return interpreter.findings.traced(jax.tree.unflatten(form, outputs))


class Place(NamedTuple):
    """Where an equation is."""

    scopes: tuple[str, ...] = ()
    steps: str = ""  # of the scans around, outermost first: "[2][0]"


class Interpreter:
    """Evaluates jaxprs on concrete values, each equation once."""

    def __init__(self, batch: Batch | None = None) -> None:
        self.findings = Findings()
        self._batch = batch or Batch(None)

    def run(self, jaxpr: Any, operands: Sequence[Operand], place: Place) -> list[Operand]:
        """Returns the results of a jaxpr; a value is let go of once it has had its last use."""
        body = getattr(jaxpr, "jaxpr", jaxpr)  # older versions of JAX have closed and open ones
        constants = [Operand(value, kinds=frozenset((PARAMETERS,))) for value in getattr(jaxpr, "consts", ())]
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
        reason = _UNREAD.get(name)
        if reason is not None and (name in _OPAQUE or any(operand.is_active for operand in inputs)):
            shapes = [np.shape(operand.array) for operand in inputs]
            self.findings.skip(name, self._name(None, inner, equation), shapes, reason)
        return bind(equation, inputs)

    def _contract(self, equation: Any, inputs: list[Operand], place: Place) -> None:
        primitive = equation.primitive.name
        contraction = Contraction.of(primitive, equation.params, inputs)
        name = self._name(contraction.source, place, equation)
        try:
            turned = contraction.turned()
            images = self._batch.of_layer(name, turned.left.array.shape) or turned.left.images
            layer = turned.layer(name, images)
        except NotALayerError as error:
            self.findings.skip(primitive, name, [np.shape(operand.array) for operand in inputs], str(error))
        else:
            self.findings.add(layer, contraction.source, is_guess=images is None)

    def _scan(self, params: Any, inputs: list[Operand], place: Place) -> list[Operand]:
        if "ft_in" in params:  # from JAX 0.11 on
            constants, carry, stacked = map(list, params["ft_in"].update(inputs).unpack())
        else:
            first, second = params["num_consts"], params["num_consts"] + params["num_carry"]
            constants, carry, stacked = inputs[:first], inputs[first:second], inputs[second:]
        carried, length, rows = len(carry), params["length"], {}
        for step in reversed(range(length)) if params["reverse"] else range(length):
            slices = [_step(one, step) for one in stacked]
            there = place._replace(steps=f"{place.steps}[{step}]")
            results = self.run(params["jaxpr"], [*constants, *carry, *slices], there)
            carry, rows[step] = results[:carried], results[carried:]
        return [*carry, *(_stacked(column) for column in zip(*(rows[i] for i in range(length)), strict=True))]

    def _name(self, source: Any, place: Place, equation: Any) -> str:
        name = name_of(source, place.scopes, equation.source_info) or equation.primitive.name
        return self.findings.unique(name + place.steps)


def _read(values: dict[Any, Operand], atom: Any) -> Operand:
    return Operand(atom.val) if isinstance(atom, Literal) else values[atom]


def _step(stacked: Operand, step: int) -> Operand:
    """Returns what a step of a scan reads of a value that it runs over."""
    images = stacked.images
    if images is not None and images.axis is not None:
        images = images.along(images.axis - 1 if images.axis else None)
    row = jax.lax.dynamic_index_in_dim(stacked.array, step, keepdims=False)
    return Operand(row, kinds=stacked.kinds, images=images)


def _stacked(rows: Sequence[Operand]) -> Operand:
    images = merged([row.images for row in rows])
    if images is not None and images.axis is not None:
        images = images.along(images.axis + 1)
    return Operand(jnp.stack([row.array for row in rows]), kinds=union(rows), images=images)


def bind(equation: Any, inputs: list[Operand]) -> list[Operand]:
    """Evaluates an equation as JAX does."""
    primitive, params = equation.primitive, equation.params
    with equation.ctx.manager:
        results = primitive.bind(*(operand.array for operand in inputs), **primitive.get_bind_params(params))
    avals = [atom.aval for atom in equation.invars]
    origins = [operand.origin for operand in inputs]
    is_opaque = primitive.name in CONTRACTIONS or any(True for _ in jaxprs_in_params(params))
    kinds = union(inputs) if primitive.name != "iota" else frozenset((INDICES,))
    shapes, images = [np.shape(operand.array) for operand in inputs], [operand.images for operand in inputs]
    return [
        Operand(
            result,
            MIXED if is_opaque else derived(avals, origins, atom.aval),
            kinds,
            images_after(primitive.name, params, shapes, images, atom.aval),
        )
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


def _weight_positions(
    fn: Callable[..., Any], args: Sequence[Any], weight_argnums: int | Sequence[int] | None
) -> set[int]:
    """Returns the positions of arguments that count as weights, see `trace`."""
    if weight_argnums is not None:
        given = weight_argnums if isinstance(weight_argnums, Sequence) else [weight_argnums]
        for position in given:
            if isinstance(position, bool) or not isinstance(position, int) or not 0 <= position < len(args):
                raise ValueError(
                    f"weight_argnums must be positions among the {len(args)} arguments of fn, got {weight_argnums!r}."
                )
        return set(given)
    has_arrays = any(_is_array(leaf) for leaf in jax.tree.leaves(fn))
    containers = {index for index, arg in enumerate(args) if not treedef_is_leaf(jax.tree.structure(arg))}
    others = [arg for index, arg in enumerate(args) if index not in containers and np.ndim(arg)]
    return containers if others and not has_arrays else set()


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray))


def _input(path: Any, leaf: Any, is_parameter: bool, batch: Batch) -> Operand:
    """Returns an array among the inputs with what it derives from: activations are known by their argument."""
    name, position = _argument(path), path[0].idx
    array = _array(name, leaf)
    origin = Origin(path, is_floating(array))
    if is_parameter:
        return Operand(array, origin, frozenset((PARAMETERS,)))
    if not array.ndim:
        return Operand(array, origin)
    return Operand(array, origin, frozenset((position,)), batch.of_input(name, array.shape))


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
