"""The fast counter of job cycles for P = T = 3: sixty-four blocks at once, one in each bit of a word."""
