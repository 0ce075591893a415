#!/usr/bin/env bash
# Whether it is right on a GPU: losses, every method, the suite.
# At most ten minutes, goes on where it was stopped, and ends with one JSON: bash benchmarks/gpu_right.sh [--dry]
exec "${PYTHON:-python}" "$(dirname "$0")/gpu.py" right "$@"
