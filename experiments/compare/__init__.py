"""The paper's comparison: Phantom-2D and its rivals over the same masks."""
