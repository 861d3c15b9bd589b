"""MATH on disk -> examples -> tokens -> global batches -> packed micro-batches."""
