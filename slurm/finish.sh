# What comes after a job: done, queued again, or broken. Sourced by train.sh and evaluate.sh.
# shellcheck shell=bash

# status.json decides: exit codes of srun and torchrun do not tell preempted from broken.
finish_job() {
  local run_dir=$1 attempt=$2 state reason
  read -r state reason < <(python -c 'import json, sys
status = json.load(open(sys.argv[1]))
print(status["state"], status.get("reason", ""))' "$run_dir/status.json" 2>/dev/null) || true
  echo "train.sh: state ${state:=missing}${reason:+ ($reason)}, run directory $run_dir"
  case $state in
    finished) exit 0 ;;
    failed) show_errors ;;
    requeue) requeue_job "$run_dir" "$attempt" ;;
    *) # running: killed in between; missing: it never came to write one
      if is_preempted; then requeue_job "$run_dir" "$attempt"; else show_errors; fi
      ;;
  esac
  exit 1
}

requeue_job() {
  local run_dir=$1 attempt=$2
  if [[ -e $run_dir/STOP && $(<"$run_dir/STOP") != requeue* ]]; then
    echo "train.sh: stopped, as the file $run_dir/STOP asked"
    exit 0
  fi
  queue_again train.sh "$attempt" "submit with --output_dir $run_dir to go on"
}

# Queue this job again and end; where that may not be, say so and return.
queue_again() {
  local script=$1 attempt=$2 advice=$3
  if ((attempt >= MAX_REQUEUES)); then
    echo "$script: not queued again after $attempt requeues (MAX_REQUEUES in slurm/site.sh)"
  elif may_requeue; then
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
  else
    echo "$script: ended by Slurm or scancel; $advice"
  fi
}

# Whether the job is still ours to requeue. After scancel Slurm says COMPLETING, and a requeue would
# bring the cancelled job back; a job whose time to preempt is over is requeued by Slurm itself.
may_requeue() {
  local now
  now=$(squeue --noheader --states all --jobs "$SLURM_JOB_ID" --format "%T %r")
  [[ $now =~ ^RUNNING|TimeLimit$ ]]
}

# Whether Slurm wants the nodes: it sent SIGTERM, perhaps before the trainer could handle it.
is_preempted() {
  [[ $(scontrol show job --oneliner "$SLURM_JOB_ID") =~ PreemptTime=[0-9] ]]
}

show_errors() {
  echo "train.sh: the output of every rank is in $LOG_DIR; errors are in:"
  grep -rliE 'traceback|error|fatal|fault' --include=stderr.log "$LOG_DIR" | sort | head || true
}
