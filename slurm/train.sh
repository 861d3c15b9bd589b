#!/usr/bin/env bash
# Train on any number of nodes. Submit from the repository root, or set SFT_ROOT to it:
#
#   sbatch slurm/train.sh --model_path Qwen/Qwen2.5-Math-1.5B --data_path data/MATH
#   sbatch --nodes 4 --time 12:00:00 slurm/train.sh --model_path ... --data_path ...
#
# Before the time limit the run saves, leaves and is queued again; then it resumes by itself. Run
# directory: --output_dir, else outputs/<job name>-<job id>. Cluster settings: slurm/site.sh;
# partition and account: the sbatch command line.
#SBATCH --job-name=sft
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --time=08:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.out
set -euo pipefail

# Slurm runs a copy of this file, so its own path says nothing.
ROOT=${SFT_ROOT:-$SLURM_SUBMIT_DIR}
for part in site run_dir finish; do
  # shellcheck disable=SC1090 # each is checked by itself
  source "$ROOT/slurm/$part.sh"
done

attempt=${SLURM_RESTART_COUNT:-0}
run_dir=$(run_directory "$@")
resume=(--resume_from_checkpoint latest) # a fresh start where there is none
if ((attempt == 0)) && [[ -n $(flag_value resume_from_checkpoint "$@") ]]; then resume=(); fi

export LOG_DIR=$run_dir/logs/job-$SLURM_JOB_ID-attempt-$attempt
mkdir -p "$LOG_DIR"
rm -f "$run_dir/STOP" "$run_dir/status.json" # what an earlier attempt said must not count now

# Node 0 is the first of the list. Ports below 32768 are never given to outgoing connections, and
# a new attempt takes another one, because the old one may not be free yet.
read -r first_node < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR=${SITE_MASTER_ADDR:-$first_node}
export MASTER_PORT=$((20000 + (SLURM_JOB_ID + attempt) % 10000))
unset NNODES NODE_RANK # left over in the shell that submitted, they would override Slurm's

# "requeue" in it: this file is Slurm's. One that a user made ends the run for good.
# shellcheck disable=SC2329 # the traps call it
ask_to_stop() { [[ -e $run_dir/STOP ]] || echo "requeue: Slurm sent $1" >"$run_dir/STOP"; }
trap 'ask_to_stop USR1' USR1
trap 'ask_to_stop TERM' TERM

# --cpu-bind=none: one task a node, but its ranks need all cores of the job. In the background:
# bash runs a trap only between commands or during `wait`.
srun --kill-on-bad-exit=1 --cpu-bind=none --label \
  ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
  "$ROOT/launch/train_node.sh" "$@" --output_dir "$run_dir" ${resume[@]+"${resume[@]}"} &
while kill -0 $! 2>/dev/null; do wait $! || true; done

trap - USR1 TERM
finish_job "$run_dir" "$attempt"
