# Which run directory a job works in. Sourced by slurm/train.sh.
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
