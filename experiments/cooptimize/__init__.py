"""Methods that make a network sparse, compared at equal accuracy in exact cycles."""
