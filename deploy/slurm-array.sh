#!/usr/bin/env bash
# Labels a data set with an array of independent jobs, one GPU each: every task makes a part in a cache of its own, and
# `labelgen merge` joins the parts afterwards. There is no cluster to start, and each task can be requeued alone.
#
#   sbatch --array=1-8 deploy/slurm-array.sh     # the number of parts is that of the array; it must start at 1
#   sbatch --array=3 --export=ALL,PARTS=8 deploy/slurm-array.sh    # one part of 8 again
#
# Change DATA and OUT here, or give them with --export.
#SBATCH --job-name=labelgen
#SBATCH --nodes=1
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=48G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@120
#SBATCH --output=labelgen-%A-%a.log
set -euo pipefail

DATASET=${DATASET:-nuscenes}
SPLIT=${SPLIT:-train}
DATA=${DATA:-/data/nuscenes}
OUT=${OUT:-/scratch/$USER/nuscenes}
VENV=${VENV:-$HOME/labelgen/.venv}
PARTS=${PARTS:-$SLURM_ARRAY_TASK_COUNT}
PART=$SLURM_ARRAY_TASK_ID

# A node may run several tasks, and Ray's sockets need a short path.
export RAY_TMPDIR=${RAY_TMPDIR:-/tmp/lg-$SLURM_JOB_ID}
mkdir -p "$RAY_TMPDIR" "$OUT"
trap 'rm -rf "$RAY_TMPDIR"' EXIT

# The run gets the signal that announces the end of the time: it stops, and the same task resumes it later.
srun --ntasks=1 "$VENV/bin/labelgen" run --dataset "$DATASET" --split "$SPLIT" --data "$DATA" \
  --part "$PART/$PARTS" --cache "$OUT/part-$PART-of-$PARTS.zarr" "$@"
