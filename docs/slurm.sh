#!/bin/bash
# One run on several machines of a SLURM cluster, continued until it is done:
#
#     sbatch docs/slurm.sh baselines.bert4rec.ml_1m corpus=ml-1m --out /shared/runs/bert4rec
#
# docs/many-machines.md explains it. Change the next lines to what your cluster has.
#SBATCH --job-name=sixfold
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=08:00:00
# SIGTERM comes this many seconds before the time is over: time for a step and a checkpoint.
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.txt

# One process a GPU. `srun` begins all of them, so that signals and exit codes pass unchanged, which
# torchrun and `accelerate launch` would replace by their own.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export MASTER_ADDR MASTER_PORT WORLD_SIZE=$SLURM_NTASKS OMP_NUM_THREADS=1

# If the network that the machines share is not the one of their names, say which card it is:
# export GLOO_SOCKET_IFNAME=ib0 NCCL_SOCKET_IFNAME=ib0

# Every process makes its place in the job of what SLURM tells it. When one fails the others end by
# themselves; --wait bounds what that takes. (--kill-on-bad-exit would turn a 75 into a 137.)
srun --kill-on-bad-exit=0 --wait=90 bash -c '
    export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID
    exec python -m research run "$@" --expect-world "$WORLD_SIZE"
' sixfold "$@"
code=$?

# 75: stopped in time, with a checkpoint. The job takes its place in the queue again, and the same
# command continues the run. All else is an end: done (0), or an error that a person must read.
if [ "$code" -eq 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
