# Functions of slurm/train.sh: which run directory, and what comes after the run.
# shellcheck shell=bash

# Last value of flag $1 among the other arguments, empty when it is not there. As in the trainer,
# `--output-dir x`, `--output_dir x` and `--output_dir=x` are the same.
flag_value() {
  local name=${1//_/[_-]} value="" previous="" arg
  shift
  for arg in "$@"; do
    if [[ $previous =~ ^--$name$ ]]; then value=$arg; fi
    if [[ $arg =~ ^--$name= ]]; then value=${arg#*=}; fi
    previous=$arg
  done
  echo "$value"
}

# A requeued job must find its run, so the directory may not depend on the time.
run_directory() {
  local run_dir checkpoint
  run_dir=$(flag_value output_dir "$@")
  checkpoint=$(flag_value resume_from_checkpoint "$@")
  if [[ -z $run_dir && -n $checkpoint && $checkpoint != latest ]]; then
    run_dir=${checkpoint%/} # the run that is continued
    if [[ ${run_dir##*/} == checkpoint-* ]]; then run_dir=$(dirname "$run_dir"); fi
  fi
  echo "${run_dir:-outputs/$SLURM_JOB_NAME-$SLURM_JOB_ID}"
}

# status.json decides: exit codes of srun and torchrun do not tell preempted from broken.
finish_job() {
  local run_dir=$1 attempt=$2 state reason
  read -r state reason < <(python -c 'import json, sys
status = json.load(open(sys.argv[1]))
print(status["state"], status.get("reason", ""))' "$run_dir/status.json" 2>/dev/null) || true
  echo "train.sh: state ${state:=missing}${reason:+ ($reason)}, run directory $run_dir"
  if [[ $state == finished ]]; then
    exit 0
  elif [[ $state == requeue ]] && ((attempt >= MAX_REQUEUES)); then
    echo "train.sh: not queued again after $attempt requeues (MAX_REQUEUES in slurm/site.sh)"
  elif [[ $state == requeue ]] && may_requeue; then
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
  elif [[ $state == requeue ]]; then
    echo "train.sh: ended by Slurm or scancel; submit with --output_dir $run_dir to go on"
  else # failed; running: killed in between; missing: it never came to write one
    echo "train.sh: the output of every rank is in $LOG_DIR; errors are in:"
    grep -rlE 'Traceback|Error|Fatal' --include=stderr.log "$LOG_DIR" | sort | head -n 5 || true
  fi
  exit 1
}

# Whether the job is still ours to requeue. After scancel Slurm says COMPLETING, and a requeue would
# bring the cancelled job back; a preempted job is requeued by Slurm itself.
may_requeue() {
  local now
  now=$(squeue --noheader --states all --jobs "$SLURM_JOB_ID" --format "%T %r")
  [[ $now =~ ^RUNNING|TimeLimit$ ]]
}
