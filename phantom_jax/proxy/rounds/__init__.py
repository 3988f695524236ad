"""Cycles of rounds: expected maxima over cores, and level-2 balance of random loads (SPEC 8.3)."""
