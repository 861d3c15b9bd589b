#!/usr/bin/env bash
# Score a checkpoint or a base model in a job of one GPU. Submit from the repository root:
#
#   sbatch slurm/evaluate.sh --model_path outputs/run/checkpoint-500 --data_path data/MATH
#
# Every flag is passed to `python -m sft_dist.evaluate`. Cluster settings: slurm/site.sh.
#SBATCH --job-name=sft-evaluate
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=02:00:00
#SBATCH --output=%x-%j.out
set -euo pipefail

# Slurm runs a copy of this file, so its own path says nothing.
ROOT=${SFT_ROOT:-$SLURM_SUBMIT_DIR}
# shellcheck source=slurm/site.sh disable=SC1091
source "$ROOT/slurm/site.sh"

exec "$ROOT/launch/evaluate.sh" "$@"
