"""Ways to start a run: the demo, sweeps; the shell scripts lie beside."""
