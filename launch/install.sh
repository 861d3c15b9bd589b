#!/usr/bin/env bash
# Make a virtual environment with the locked packages and this project in it.
#
#   PYTHON=python3.11 launch/install.sh VENV cpu|gpu
set -euo pipefail

venv=${1:?usage: launch/install.sh VENV cpu|gpu}
platform=${2:?usage: launch/install.sh VENV cpu|gpu}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

python=${PYTHON:-python3.11}
command -v "$python" >/dev/null || python=python3
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' || {
    echo "error: expected Python 3.11 or 3.12, found $("$python" --version); set PYTHON=..." >&2
    exit 1
}

echo "installing the locked packages into $venv: about 3 minutes and 4 GB for a CPU" >&2
"$python" -m venv "$venv"
pip=("$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps)

# pip is silent for minutes: a sign of life, until this script ends. The sleep that is left then
# must hold nobody's output open.
(while sleep 20 >/dev/null 2>&1; do echo "still installing ($SECONDS s)" >&2; done) &
trap 'kill $!' EXIT

# The lock is complete: --no-deps keeps pip from adding what it leaves out on purpose.
if ! "${pip[@]}" -r "$here/requirements/$platform.txt"; then
    if [ "$platform" = cpu ]; then
        echo "hint: the CPU lock wants torch's CPU build (torch==2.13.0+cpu), which PyPI does not" >&2
        echo "      carry; point PIP_EXTRA_INDEX_URL at PyTorch's CPU wheel index" >&2
    fi
    exit 1
fi
"${pip[@]}" --editable "$here"

if [ "$platform" = gpu ]; then
    # Built against the torch just installed; needs nvcc. Without it attention falls back to sdpa.
    "${pip[@]}" --no-build-isolation flash-attn==2.8.3.post2 ||
        echo "warning: flash-attn did not build; training uses torch's attention" >&2
fi
