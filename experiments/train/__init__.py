"""Training of a sparse network with cycles in the loss."""
