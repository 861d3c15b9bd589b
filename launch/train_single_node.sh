#!/usr/bin/env bash
# Train on this machine: one rank a GPU, or one rank on the CPU.
#
# Usage:    launch/train_single_node.sh FLAGS OF sft_dist.train ...
# Example:  launch/train_single_node.sh --model_path Qwen/Qwen2.5-Math-1.5B --data_path data/MATH
# Settings: NPROC_PER_NODE  ranks (default: all GPUs of this machine, else 1)
#           launch/env.sh   everything else
# The result is in status.json of the run directory; see docs/slurm.md for its states.
set -euo pipefail

# shellcheck source=launch/env.sh disable=SC1091
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# Faults of the flags in a line each and exit code 2, before torchrun wraps them in tracebacks.
python -m sft_dist.train "$@" --print_config >/dev/null

# --standalone   picks a free port, so two runs can share a machine.
# --max-restarts the run is resumed from a checkpoint, not restarted in place.
# USR1           is "please stop" for the trainer; torchrun itself would die of it.
# --             flags such as --log_steps would otherwise be read as options of torchrun.
exec torchrun --standalone --nproc-per-node "$NPROC_PER_NODE" --max-restarts 0 \
  --signals-to-handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1 \
  --shutdown-timeout "${SHUTDOWN_SECONDS:-110}" \
  -m sft_dist.train -- "$@"
