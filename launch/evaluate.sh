#!/usr/bin/env bash
# Score a checkpoint or a base model on one GPU (or on the CPU), or serve the evaluations of a run.
#
# Usage:    launch/evaluate.sh FLAGS OF sft_dist.evaluate ...
# Example:  launch/evaluate.sh --model_path outputs/run/checkpoint-500 --data_path data/MATH
#           launch/evaluate.sh --serve outputs/run
# Settings: launch/env.sh
set -euo pipefail

export NPROC_PER_NODE=1 # one process: the vLLM engine takes the first visible GPU
# shellcheck source=launch/env.sh disable=SC1091
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

exec python -m sft_dist.evaluate "$@"
