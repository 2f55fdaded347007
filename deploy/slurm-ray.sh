#!/usr/bin/env bash
# Labels a data set with one run on several nodes: starts a Ray cluster in the allocation, runs labelgen on it, and ends it.
#
#   sbatch --nodes=8 deploy/slurm-ray.sh
#
# Change DATA and CACHE here, or give them with --export. Data, weights and cache are where all nodes can reach them.
#SBATCH --job-name=labelgen
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --output=labelgen-%j.log
set -euo pipefail

DATASET=${DATASET:-nuscenes}
SPLIT=${SPLIT:-train}
DATA=${DATA:-/data/nuscenes}
CACHE=${CACHE:-/scratch/$USER/nuscenes.zarr}
VENV=${VENV:-$HOME/labelgen/.venv}
PORT=${PORT:-6379}
SECONDS_TO_JOIN=${SECONDS_TO_JOIN:-300}

# Ray's sockets need a short path; the folder is on the disk of each node.
export RAY_TMPDIR=${RAY_TMPDIR:-/tmp}
HEAD=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
HEAD_IP=$(srun --nodes=1 --ntasks=1 --nodelist="$HEAD" hostname --ip-address | awk '{print $1}')
ADDRESS=$HEAD_IP:$PORT

# Only who can read this file, which is on a disk of all nodes, can connect to the cluster.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$PWD/.labelgen-token-$SLURM_JOB_ID
(umask 077 && head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH")

start() { # start <number of nodes> <nodes> <more options of ray start>
  srun --overlap --nodes="$1" --ntasks="$1" --nodelist="$2" --ntasks-per-node=1 \
    "$VENV/bin/ray" start --num-cpus="$SLURM_CPUS_PER_TASK" --disable-usage-stats --block "${@:3}" &
}

trap 'kill $(jobs -p) 2>/dev/null || true; wait; rm -f "$RAY_AUTH_TOKEN_PATH"' EXIT
start 1 "$HEAD" --head --node-ip-address="$HEAD_IP" --port="$PORT" --include-dashboard=false
until "$VENV/bin/ray" health-check --address "$ADDRESS" 2>/dev/null; do
  [ "$SECONDS" -lt "$SECONDS_TO_JOIN" ] || { echo "error: the head on $HEAD does not answer at $ADDRESS" >&2; exit 1; }
  sleep 2
done
if [ "$SLURM_JOB_NUM_NODES" -gt 1 ]; then
  OTHERS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | tail -n +2 | paste -sd,)
  start $((SLURM_JOB_NUM_NODES - 1)) "$OTHERS" --address="$ADDRESS"
fi

# labelgen starts with the nodes that have joined, and takes the others as they come.
"$VENV/bin/labelgen" run --dataset "$DATASET" --split "$SPLIT" --data "$DATA" --cache "$CACHE" --ray-address "$ADDRESS" "$@"
