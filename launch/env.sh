# Environment of one node of a run. Sourced by the other scripts in launch/, not executed.
#
# Every variable keeps a value that is already set, so a site or a user can override any of them.
# Nothing here belongs to one cluster: network interfaces, modules and caches are in slurm/site.sh.
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# Ranks on this node: one a GPU that is not reserved for evaluation. Slurm knows best, then the GPUs made visible, then the driver.
# Without any GPU: one rank.
if [[ -z ${NPROC_PER_NODE:-} ]]; then
  if [[ ${SLURM_GPUS_ON_NODE:-} =~ ^[1-9][0-9]*$ ]]; then
    NPROC_PER_NODE=$SLURM_GPUS_ON_NODE
  elif [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
    NPROC_PER_NODE=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | grep -c '^[^-]' || true)
  else
    NPROC_PER_NODE=$({ nvidia-smi -L 2>/dev/null || true; } | grep -c '^GPU' || true)
  fi
  # shellcheck source=launch/reserved.sh disable=SC1091
  source "$ROOT/launch/reserved.sh"
  NPROC_PER_NODE=$((NPROC_PER_NODE - $(reserved_gpus "$@"))) # the arguments of the script
fi
if ((NPROC_PER_NODE < 1)); then NPROC_PER_NODE=1; fi
export NPROC_PER_NODE

# CPU threads of a rank. torchrun would say 1, which starves tokenisation and CPU runs; torch alone
# would say all cores, eight times over.
threads=$(($(nproc) / NPROC_PER_NODE))
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((threads > 0 ? threads : 1))}

# The repository is found from any directory, also where it is not installed.
export PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}$ROOT

# Output reaches the log files at once, so that a killed rank has not lost its last lines.
export PYTHONUNBUFFERED=${PYTHONUNBUFFERED:-1}

# A crash in native code prints the Python stack of the rank.
export PYTHONFAULTHANDLER=${PYTHONFAULTHANDLER:-1}

# Packed rows differ in length from step to step; growable segments keep the CUDA allocator from
# fragmenting. No effect on numbers, none without a GPU.
export PYTORCH_ALLOC_CONF=${PYTORCH_ALLOC_CONF:-expandable_segments:True}

# NCCL says why a connection failed, and nothing else.
export NCCL_DEBUG=${NCCL_DEBUG:-WARN}
