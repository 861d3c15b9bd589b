"""Ranks, signals and the run directory."""
