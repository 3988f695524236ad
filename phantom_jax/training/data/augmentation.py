"""Light augmentation of images, in JAX."""

import jax
import jax.numpy as jnp

from phantom_jax.checks import integer


def augment(key: jax.Array, images: jax.Array, shift: int, flip: bool | None) -> jax.Array:
    """Returns each image shifted and flipped at random, independently of the others.

    Can be jitted with `shift` and `flip` static. What is shifted in is zero, and nothing is interpolated: zeros stay
    zeros, and every value is one of the image.

    Args:
        key: A key of `jax.random`.
        images: Images `[B, H, W, C]`.
        shift: Largest shift in pixels, up or down and left or right, each drawn uniformly; below H and W.
        flip: Whether half of the images are mirrored, left for right; None for those with more than one channel.

    Raises:
        ValueError: An argument is not valid.
    """
    shift = integer("shift", shift, minimum=0)
    if images.ndim != 4:
        raise ValueError(f"images must be [B, H, W, C], got shape {images.shape}.")
    batch, height, width, channels = images.shape
    if shift >= min(height, width):
        raise ValueError(f"shift must be below the images' height and width, {height} and {width}, got {shift}.")
    if flip is not None and not isinstance(flip, bool):
        raise ValueError(f"flip must be true, false or null, got {flip!r}.")
    if flip is None:
        flip = channels > 1
    shift_key, flip_key = jax.random.split(key)
    if flip:
        is_flipped = jax.random.bernoulli(flip_key, shape=(batch, 1, 1, 1))
        images = jnp.where(is_flipped, images[:, :, ::-1], images)
    if shift:
        padded = jnp.pad(images, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
        starts = jax.random.randint(shift_key, (batch, 2), 0, 2 * shift + 1)
        # Slices are several times as fast on the CPU as a select over all shifts.
        images = jax.vmap(lambda image, start: jax.lax.dynamic_slice(image, (*start, 0), (height, width, channels)))(
            padded, starts
        )
    return images
