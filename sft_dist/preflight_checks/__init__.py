"""What `sft_dist.preflight` looks at: one file a question, each answered by findings."""
