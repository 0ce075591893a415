#!/usr/bin/env bash
# What the paper's protocol takes on a GPU: BackCE on non-IID1, as far as the time goes.
# At most ten minutes, goes on where it was stopped, and ends with one JSON: bash benchmarks/gpu_real.sh [--dry]
exec "${PYTHON:-python}" "$(dirname "$0")/gpu.py" real "$@"
