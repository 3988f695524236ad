"""A slow and obvious second implementation of the model, for the tests alone. Imports nothing of phantom_jax."""
