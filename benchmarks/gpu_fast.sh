#!/usr/bin/env bash
# Whether it is fast on a GPU: losses, client switch, steps, loading, rounds.
# At most ten minutes, goes on where it was stopped, and ends with one JSON: bash benchmarks/gpu_fast.sh [--dry]
exec "${PYTHON:-python}" "$(dirname "$0")/gpu.py" fast "$@"
