"""Sweeps: many runs from one file, here or on a cluster, and comparisons as sweeps."""
