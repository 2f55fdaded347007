#!/usr/bin/env bash
# Measure all that needs a GPU, on a machine without network: benchmarks/gpu_check.sh MINUTES [STAGES]
#
#   benchmarks/gpu_check.sh 12                     all stages, within 12 minutes
#   benchmarks/gpu_check.sh 3 environment clip     these stages
#
# Takes packages and demo data from the archives in .gpu, which `python -m benchmarks.pack_for_gpu` makes where there is
# a network. Without .gpu it uses the packages that are installed, out/demo and out/demo.zarr. Unpacked files stay in
# UNPACKED for the next call, so archives can come in several transfers.
# Environment: RESULTS (default out/gpu-check) gets one JSON file a stage and gpu.md; PYTHON; DEVICE=cpu SIZES=tiny
# rehearse the script.
set -euo pipefail
cd "$(dirname "$0")/.."
minutes=${1:?say how many minutes the measurement may take}
shift
python=${PYTHON:-python3}
unpacked=${UNPACKED:-${TMPDIR:-/tmp}/labelgen-gpu-$(id -u)}
results=${RESULTS:-out/gpu-check}

mkdir -p -m 0700 "$unpacked"
for archive in .gpu/*.tar.xz; do
  [ -f "$archive" ] || continue
  "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' || {
    echo "error: .gpu holds packages for Python 3.12, $python is another version: set PYTHON, or remove .gpu" >&2
    exit 2
  }
  echo "unpacking $archive"
  tar -xJf "$archive" -C "$unpacked"
done
world=out/demo
[ ! -d "$unpacked/demo" ] || world=$unpacked/demo
export PYTHONPATH="$unpacked/site:$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
# Entry points and the version are read from the package's metadata, which a plain checkout lacks.
"$python" -c 'from setuptools import setup; setup()' -q egg_info
exec "$python" -m benchmarks.gpu_check --minutes "$minutes" --world "$world" --cache "$world.zarr" --out "$results" \
  --device "${DEVICE:-cuda}" --sizes "${SIZES:-full}" "$@"
