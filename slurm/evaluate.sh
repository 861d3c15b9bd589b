#!/usr/bin/env bash
# Score a checkpoint, or serve the evaluations of a run, in a job of one GPU. Submit from the
# repository root:
#
#   sbatch slurm/evaluate.sh --model_path outputs/run/checkpoint-500 --data_path data/MATH
#   sbatch slurm/evaluate.sh --serve outputs/run
#
# The second is the other half of a run trained with `--eval_placement external`: it may be
# submitted before, and several times (each job takes requests that no other has). It ends with the
# run. Every flag is passed to `python -m sft_dist.evaluate`. Cluster settings: slurm/site.sh.
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
