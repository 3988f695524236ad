"""The baselines beside the figures that were published about them."""
