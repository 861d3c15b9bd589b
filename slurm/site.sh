# Settings of your cluster: the one file to edit. Sourced by the batch scripts on the first node;
# srun carries the environment to the others. A variable that is already set wins.
# shellcheck shell=bash

# Modules to load, separated by spaces. Default none: the wheels of torch bring CUDA and NCCL.
SITE_MODULES=${SITE_MODULES:-}

# Virtual environment, on a file system that all nodes see. Default: .venv of the repository.
# Empty: the python and torchrun found on PATH.
SITE_VENV=${SITE_VENV-$ROOT/.venv}

# Network interface for NCCL and gloo, for example ib0 or "^lo,docker0". Default unset: NCCL takes
# the fastest it finds. Needed where that one does not reach the other nodes.
SITE_INTERFACE=${SITE_INTERFACE:-}

# Address of the first node. Default unset: its name in Slurm. Needed where that is not in DNS.
SITE_MASTER_ADDR=${SITE_MASTER_ADDR:-}

# Directory for models and data sets from the Hub. Default unset: ~/.cache/huggingface. Set it where
# the home directory is small.
SITE_HF_HOME=${SITE_HF_HOME:-}

# 1 where compute nodes have no internet: no time lost in retries. Default 0.
SITE_OFFLINE=${SITE_OFFLINE:-0}

# Requeues after which a job gives up, so that a run that cannot advance does not loop forever.
MAX_REQUEUES=${MAX_REQUEUES:-100}

set +u # module files and activate scripts read variables that are not set
# shellcheck disable=SC2086 # several modules are several words
if [[ -n $SITE_MODULES ]]; then module load $SITE_MODULES; fi
# shellcheck disable=SC1091 # exists only where it was created
if [[ -n $SITE_VENV && -f $SITE_VENV/bin/activate ]]; then source "$SITE_VENV/bin/activate"; fi
set -u

if [[ -n $SITE_INTERFACE ]]; then
  export NCCL_SOCKET_IFNAME=$SITE_INTERFACE
  # gloo knows one plain name only, no list and no exclusion.
  if [[ $SITE_INTERFACE != *[,=^]* ]]; then export GLOO_SOCKET_IFNAME=$SITE_INTERFACE; fi
fi
if [[ -n $SITE_HF_HOME ]]; then export HF_HOME=$SITE_HF_HOME; fi
if [[ $SITE_OFFLINE == 1 ]]; then export HF_HUB_OFFLINE=1 WANDB_MODE=${WANDB_MODE:-offline}; fi
