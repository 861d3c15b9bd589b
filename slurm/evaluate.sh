#!/usr/bin/env bash
# Score a checkpoint, or serve the evaluations of a run, in a job of one GPU. Submit from the
# repository root:
#
#   sbatch slurm/evaluate.sh --model_path outputs/run/checkpoint-500 --data_path data/MATH
#   sbatch slurm/evaluate.sh --serve outputs/run
#
# The second is the other half of a run trained with `--eval_placement external`: it may be
# submitted before, and several times (each job takes requests that no other has). It ends with the
# run; a time limit that comes first queues it again. Keep the limit above --serve_idle_timeout (4 h):
# it is what ends a server whose run has died. Every flag is passed to `python -m
# sft_dist.evaluate`. Cluster settings: slurm/site.sh.
#SBATCH --job-name=sft-evaluate
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=64G
#SBATCH --time=06:00:00
#SBATCH --signal=B:USR1@60
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
set -euo pipefail

# Slurm runs a copy of this file, so its own path says nothing.
ROOT=${SFT_ROOT:-$SLURM_SUBMIT_DIR}
# shellcheck source=slurm/site.sh disable=SC1091
source "$ROOT/slurm/site.sh"

# shellcheck source=slurm/finish.sh disable=SC1091
source "$ROOT/slurm/finish.sh"

# In the background: bash runs a trap only between commands or during `wait`.
"$ROOT/launch/evaluate.sh" "$@" &
server=$! is_cut_off=
trap 'kill -TERM $server 2>/dev/null || true' TERM
trap 'is_cut_off=1; kill -TERM $server 2>/dev/null || true' USR1
while kill -0 $server 2>/dev/null; do wait $server || true; done
code=0
wait $server || code=$? # bash keeps the code of a child that has ended

# What a server leaves open, its next attempt or another server takes. A single scoring starts anew.
if [[ $is_cut_off && " $*" =~ \ --serve[\ =] ]]; then
  queue_again evaluate.sh "${SLURM_RESTART_COUNT:-0}" "submit it again to serve what is open"
fi
exit "$code"
