"""How arrays of different ranks and types meet in the library's own arithmetic."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def promotion() -> Iterator[None]:
    """Promotes ranks and types as JAX does by default, whatever a user's configuration allows in their own code.

    It holds for the thread that enters it, and decorates functions too. Rules of derivatives run apart from the
    function that they are for, so they need it as well.
    """
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield
