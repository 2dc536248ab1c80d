#!/usr/bin/env bash
# A training on several machines of a Slurm cluster:
#
#     sbatch --nodes 4 examples/slurm.sh --preset dove-base --data /shared/imagenet/train --output /shared/runs/base
#
# One task on each machine starts one process per GPU. Paths must be the same on all machines. Slurm sends the job back into
# the queue when a machine is lost or the time is up; the same command then goes on from the last checkpoint.
#SBATCH --job-name dove
#SBATCH --ntasks-per-node 1
#SBATCH --gpus-per-node 8
#SBATCH --cpus-per-task 64
#SBATCH --requeue
#SBATCH --open-mode append
set -euo pipefail

rendezvous=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=1

srun torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" \
    --nproc-per-node "${SLURM_GPUS_ON_NODE:-1}" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$rendezvous:29500" \
    --rdzv-id "$SLURM_JOB_ID" \
    -m dove train --run.workers 8 "$@"
