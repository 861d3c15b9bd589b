"""Sweeps: a file of axes -> cells -> runs, locally or as a Slurm array -> one table."""
