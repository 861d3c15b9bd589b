#!/usr/bin/env bash
# Train on several nodes without Slurm, through the DeepSpeed launcher (pdsh over ssh).
# Run it on the first host of the host file; code, environment and data at the same paths on all.
#
# Usage:    launch/train_deepspeed.sh HOSTFILE FLAGS OF sft_dist.train ...
# Example:  launch/train_deepspeed.sh hosts --model_path ... --data_path data/MATH
#           where hosts holds one line a node:   node-a slots=8
# Settings: MASTER_ADDR     address of the first host (default: what it says of itself)
#           MASTER_PORT     free port there           (default 29500, DeepSpeed's own)
#           OMP_NUM_THREADS CPU threads of a rank     (default: launch/env.sh, for this node)
#           launch/env.sh   everything else
set -euo pipefail

if [[ $# -lt 1 || ! -f $1 ]]; then
  echo "train_deepspeed.sh: expected a host file as first argument, found '${1:-nothing}'" >&2
  exit 2
fi
hostfile=$1
shift
# shellcheck source=launch/env.sh disable=SC1091
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# The launcher carries PYTHON* and NCCL_* to the other hosts; the rest goes through a file, after
# the one that you may have (DeepSpeed's own default is ~/.deepspeed_env).
# Keys are left out on purpose: they would show in the process list.
yours=${DS_ENV_FILE:-$HOME/.deepspeed_env}
export DS_ENV_FILE
DS_ENV_FILE=$(mktemp)
trap 'rm -f "$DS_ENV_FILE"' EXIT
if [[ -f $yours ]]; then cat "$yours" >"$DS_ENV_FILE"; fi
env | grep -E '^(OMP_NUM_THREADS|PYTORCH_ALLOC_CONF|HF_HOME|HF_HUB_OFFLINE|WANDB_MODE)=' \
  >>"$DS_ENV_FILE" || true

# --no_local_rank  the trainer reads LOCAL_RANK; --local_rank=N would be an unknown flag.
deepspeed --hostfile "$hostfile" --no_local_rank \
  ${MASTER_ADDR:+--master_addr "$MASTER_ADDR"} --master_port "${MASTER_PORT:-29500}" \
  --module sft_dist.train "$@"
