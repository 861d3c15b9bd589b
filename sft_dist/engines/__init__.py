"""Sharded or plain: whoever holds the weights and the optimizer."""
