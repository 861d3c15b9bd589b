# GPUs that `--eval_placement reserved` keeps from training. Sourced by launch/env.sh.
#
# Only the node of rank 0 evaluates. A run that reserves GPUs in a --config file must set
# NPROC_PER_NODE itself; the trainer says so when a reserved GPU has a rank.
# shellcheck shell=bash

# Number of GPUs of this node that the arguments reserve.
reserved_gpus() {
  local placement="" gpus=1 previous="" arg
  for arg in "$@"; do
    arg=${arg/#--eval-/--eval_} # as in the trainer, dashes and underscores are the same
    case $previous in
    --eval_placement) placement=$arg ;;
    --eval_gpus) gpus=$arg ;;
    esac
    case $arg in
    --eval_placement=*) placement=${arg#*=} ;;
    --eval_gpus=*) gpus=${arg#*=} ;;
    esac
    previous=$arg
  done
  if [[ $placement == reserved && ${NODE_RANK:-${SLURM_NODEID:-0}} == 0 ]]; then
    echo "$gpus"
  else
    echo 0
  fi
}
