"""What is known about a run: record, wandb, console."""
