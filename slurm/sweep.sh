#!/usr/bin/env bash
# One cell of a sweep as a task of an array. `python -m launch.sweep FILE` submits it, with the
# options of sbatch that FILE names. A submission by hand, from the repository root:
#
#   SFT_ROOT=$PWD sbatch slurm/sweep.sh outputs/sweeps/NAME/submissions/0001.json   # and --array=0-11
#
# The task does what slurm/train.sh does, with the flags of its cell: it saves before the time
# limit, is queued again and resumes. Cluster settings: slurm/site.sh.
#SBATCH --job-name=sft-sweep
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=08:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%A_%a.out
set -euo pipefail

# Slurm runs a copy of this file, so its own path says nothing.
ROOT=${SFT_ROOT:-$SLURM_SUBMIT_DIR}
# shellcheck source=slurm/site.sh disable=SC1091
source "$ROOT/slurm/site.sh"

submission=${1:?usage: sbatch slurm/sweep.sh SUBMISSION.json, with --array=0-N}
task=(python "$ROOT/launch/sweeping/task.py" "$submission" "$SLURM_ARRAY_TASK_ID")
mapfile -d '' -t flags < <("${task[@]}")
mapfile -d '' -t stop < <("${task[@]}" stop)
if ((${#flags[@]} == 0)); then
  echo "sweep.sh: $submission has no cell $SLURM_ARRAY_TASK_ID" >&2
  exit 2
fi

# Early stopping: asks the cell to stop where the sweep compares cells. It ends with this script.
if ((${#stop[@]} > 0)); then
  python "$ROOT/launch/sweeping/rung_watch.py" "${stop[@]}" &
fi

# The same process: Slurm's USR1 must reach the traps of train.sh.
exec "$ROOT/slurm/train.sh" "${flags[@]}"
