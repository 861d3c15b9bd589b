"""DeepSpeed settings by name; README.md explains every key."""
