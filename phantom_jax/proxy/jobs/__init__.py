"""Cycles of single jobs under random weight bits: pattern tables, Markov chains, samples (SPEC 8)."""
