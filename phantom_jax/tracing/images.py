"""Where a value holds its images, followed through what a network does with them.

Inputs hold their images along their first axis, unless the caller names another. Transposes move it (`[T, B, C]`),
reshapes may merge it with other axes (`[B, T, C]` to `[B * T, C]`).
"""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from phantom_jax.checks import integer


@dataclasses.dataclass(frozen=True)
class Images:
    """Where a value holds its images: element i along the axis is of image `i // inner % count`."""

    count: int
    axis: int | None  # None for a single image that has no axis
    inner: int = 1
    is_sure: bool = False  # said by the caller, or by a convolution; else inputs are taken to begin with it

    def along(self, axis: int | None) -> "Images | None":
        """Returns the same images along another axis of the same size; without one, None, or those of one image."""
        return None if axis is None and self.count > 1 else dataclasses.replace(self, axis=axis)

    def swapped(self, rank: int) -> "Images":
        """Returns where the images are after the last two axes of `rank` change places."""
        if self.axis is None or self.axis < rank - 2:
            return self
        return dataclasses.replace(self, axis=2 * rank - 3 - self.axis)

    def reshaped(self, old: Sequence[int], new: Sequence[int]) -> "Images | None":
        """Returns where the images are after a reshape; None if their axis is split."""
        if self.count == 1 or self.axis is None:
            return self.along(None)
        stride = math.prod(old[self.axis + 1 :]) * self.inner
        for axis, size in enumerate(new):
            step = math.prod(new[axis + 1 :])
            if size > 1 and step and stride % step == 0 and stride * self.count <= step * size:
                return dataclasses.replace(self, axis=axis, inner=stride // step)
        return None

    def kept(self, old: Sequence[int], new: Sequence[int]) -> "Images | None":
        """Returns where the images are after what leaves axes in place; None if theirs has another size or is gone."""
        stays = self.axis is not None and len(old) == len(new) and old[self.axis] == new[self.axis]
        return self.along(self.axis if stays else None)

    def first(self, values: np.ndarray, trailing: int = 1) -> np.ndarray:
        """Returns values `[*free, *trailing]` as `[B, *trailing]`, or `[B, Q, *trailing]` where an image has positions.

        Args:
            values: What the axis is one of.
            trailing: How many axes at the end stay as they are.
        """
        free, rest = values.shape[:-trailing], values.shape[-trailing:]
        if self.axis is None:
            return values.reshape(1, *([math.prod(free)] if free else []), *rest)
        outer = free[self.axis] // max(self.count * self.inner, 1)
        before, after = free[: self.axis], free[self.axis + 1 :]
        moved = np.moveaxis(values.reshape(*before, outer, self.count, self.inner, *after, *rest), len(before) + 1, 0)
        has_positions = len(free) > 1 or outer * self.inner > 1
        positions = [math.prod(free) // max(self.count, 1)] if has_positions else []
        return moved.reshape(self.count, *positions, *rest)


def without(axis: int, removed: Collection[int]) -> int | None:
    """Returns where an axis is once others are removed, None if it is one of them."""
    return None if axis in removed else axis - sum(other < axis for other in removed)


def merged(candidates: Sequence[Images | None]) -> Images | None:
    """Returns where the images of a result are, given where its operands put them; None if that is not known.

    What one image gives to all, and operands whose images are not known, have no say; nor have guesses beside others.
    """
    known = [one for one in candidates if one is not None]
    known = [one for one in known if one.is_sure] or known
    several = {one for one in known if one.count > 1}
    if len(several) > 1:
        return None
    if several:
        return several.pop()
    with_axis = [one for one in known if one.axis is not None]
    return (with_axis or known or [None])[0]


class Batch:
    """What a caller says of the images' axis: for all inputs, or by the name of an input or a layer.

    Args:
        batch: An axis; or a mapping from names to axes; or None for the first axis of the inputs.

    Raises:
        ValueError: It is something else.
    """

    def __init__(self, batch: int | Mapping[str, int] | None) -> None:
        named = batch if isinstance(batch, Mapping) else {}
        self._default = None if batch is None or isinstance(batch, Mapping) else integer("batch", batch, 0)
        self._named = {str(name): integer(f"batch[{name!r}]", axis, 0) for name, axis in named.items()}
        self._shapes: dict[str, tuple[int, ...]] = {}

    def of_input(self, name: str, shape: Sequence[int]) -> Images | None:
        """Returns the images of an input; None if it has too few axes.

        Raises:
            ValueError: It lacks the axis that is given for it by name.
        """
        given = self.of_layer(name, shape)
        axis = self._default or 0
        if given is not None or axis >= len(shape):
            return given
        return Images(shape[axis], axis, is_sure=self._default is not None)

    def of_layer(self, name: str, shape: Sequence[int]) -> Images | None:
        """Returns the images of a layer's activations, of a given shape, if the caller gives their axis by its name.

        Raises:
            ValueError: They lack the axis that is given.
        """
        self._shapes[name] = tuple(shape)
        axis = self._named.get(name)
        if axis is not None and axis >= len(shape):
            raise ValueError(f"batch[{name!r}] must be an axis of an array of shape {tuple(shape)}, got {axis}.")
        return None if axis is None else Images(shape[axis], axis, is_sure=True)

    def check(self) -> None:
        """Checks, after all inputs and layers were seen, that what was given could be used.

        Raises:
            ValueError: A name is of no input and no layer, or no input has the axis.
        """
        for name in self._named:
            if name not in self._shapes:
                raise ValueError(
                    f"batch must name inputs or layers, got {name!r}; there are {', '.join(self._shapes)}."
                )
        if self._default and all(self._default >= len(shape) for shape in self._shapes.values()):
            raise ValueError(f"batch must be an axis of the inputs, got {self._default}; they have fewer axes.")
