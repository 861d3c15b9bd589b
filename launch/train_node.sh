#!/usr/bin/env bash
# One node of a multi-node run: torchrun with a static rendezvous, so rank 0 is on node 0.
# slurm/train.sh runs it through srun; by hand, run the same command on every node.
#
# Usage:    launch/train_node.sh FLAGS OF sft_dist.train ...
# Example:  NNODES=2 NODE_RANK=0 MASTER_ADDR=node-a launch/train_node.sh --model_path ...
# Settings: NNODES          nodes              (default: Slurm's, else 1)
#           NODE_RANK       this node, from 0  (default: Slurm's, else 0)
#           MASTER_ADDR     host of node 0     (required with more than one node)
#           MASTER_PORT     free port there    (default 29500, torchrun's own)
#           NPROC_PER_NODE  ranks              (default: the GPUs of this node, else 1)
#           LOG_DIR         output of every rank under LOG_DIR/node-N; unset: all on the console
#           SFT_PREFLIGHT   1: sft_dist.preflight --probe first; nothing is trained on a no-go
set -euo pipefail

# shellcheck source=launch/env.sh disable=SC1091
source "$(dirname "${BASH_SOURCE[0]}")/env.sh"

# Read here, in the task that srun started: in the batch script SLURM_NODEID is always 0.
nnodes=${NNODES:-${SLURM_JOB_NUM_NODES:-1}}
node_rank=${NODE_RANK:-${SLURM_NODEID:-0}}
if ((nnodes > 1)) && [[ -z ${MASTER_ADDR:-} ]]; then
  echo "train_node.sh: $nnodes nodes, but MASTER_ADDR is not set: give the host of node 0" >&2
  exit 2
fi

logs=()
if [[ -n ${LOG_DIR:-} ]]; then
  # A file a rank and stream; on the console only the first rank of each node.
  logs=(--log-dir "$LOG_DIR/node-$node_rank" --redirects 3 --tee 3 --local-ranks-filter 0)
  mkdir -p "$LOG_DIR/node-$node_rank"
fi

# --max-restarts  with several nodes a restart in place never recovers; the run is resumed instead.
# USR1            is "please stop" for the trainer; torchrun itself would die of it.
# --shutdown-...  seconds that ranks have to save after a SIGTERM before they are killed.
# --              flags such as --log_steps would otherwise be read as options of torchrun.
port=${MASTER_PORT:-29500}
command=(torchrun --nnodes "$nnodes" --node-rank "$node_rank" --nproc-per-node "$NPROC_PER_NODE"
  --rdzv-backend static --master-addr "${MASTER_ADDR:-127.0.0.1}" --max-restarts 0
  --signals-to-handle "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
  --shutdown-timeout "${SHUTDOWN_SECONDS:-110}" ${logs[@]+"${logs[@]}"})

# Once a job, not after a requeue. Another port: the first one's may not be free again at once.
if [[ ${SFT_PREFLIGHT:-0} == 1 && ${SLURM_RESTART_COUNT:-0} == 0 ]]; then
  "${command[@]}" --master-port "$((port + 1))" -m sft_dist.preflight -- --probe "$@"
fi

exec "${command[@]}" --master-port "$port" -m sft_dist.train -- "$@"
