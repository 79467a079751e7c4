"""Checks of a run that `execute.py` makes before anything is trained or written."""

from __future__ import annotations

import socket

import torch

from research.distributed.collectives import Processes
from research.errors import InputError
from research.runs.config import RunConfig


def check_sharding(config: RunConfig) -> None:
    """Raise `InputError` for stages that cannot work with sharded weights or with fp16.

    With fp16, gradients are multiplied by a loss scale, so a combination cannot merge them. With
    `compute.shard_weights` no process has a whole gradient, and torch has no SGD.
    """
    for stage in config.stages:
        if stage.combination.merges_gradients and config.compute.precision == "fp16":
            raise InputError(
                f"stage {stage.name}: combination is {type(stage.combination).__name__}, which "
                "merges gradients that fp16 has scaled; use bf16 or fp32"
            )
    if not config.compute.shard_weights:
        return
    if config.items.vectors != "none":
        raise InputError(
            f"items.vectors is {config.items.vectors}, but compute.shard_weights splits the "
            "projection of all items' vectors over processes; leave one out"
        )
    for stage in config.stages:
        if stage.gradients_every is not None:
            raise InputError(
                f"stage {stage.name}: gradients_every is {stage.gradients_every}, but with "
                "compute.shard_weights no process has an objective's whole gradient; leave one out"
            )
        if stage.optimizer.method == "sgd":
            raise InputError(
                f"stage {stage.name}: optimizer.method is sgd, which torch cannot do with "
                "compute.shard_weights; use adam or adamw"
            )
        combination = stage.combination
        if combination.learns or combination.merges_gradients:
            raise InputError(
                f"stage {stage.name}: combination is {type(combination).__name__}, which needs "
                "whole gradients or weights of its own, but compute.shard_weights splits them; "
                "leave one out"
            )


def check_touched_rows(config: RunConfig, processes: int) -> None:
    """Raise `InputError` for stages that ask for touched rows and could not move them alone.

    `processes` is their number: each would touch other rows. A combination that merges gradients
    replaces them by dense ones, and then every row is moved.
    """
    for stage in config.stages:
        if stage.optimizer.item_rows == "all":
            continue
        if config.items.vectors != "none":
            raise InputError(
                f"stage {stage.name}: optimizer.item_rows is 'touched', but items.vectors is "
                f"{config.items.vectors}: a step moves the projection, and with it all rows; use "
                "'all'"
            )
        if config.items.dropout:
            raise InputError(
                f"stage {stage.name}: optimizer.item_rows is 'touched', but items.dropout is "
                f"{config.items.dropout}: dropout of the whole table has gradients of all rows; "
                "use 'all', or set items.dropout to 0"
            )
        if stage.combination.merges_gradients:
            raise InputError(
                f"stage {stage.name}: optimizer.item_rows is 'touched', but combination is "
                f"{type(stage.combination).__name__}, which merges gradients into dense ones; use "
                "'all', or another combination"
            )
        if processes > 1:
            raise InputError(
                f"stage {stage.name}: optimizer.item_rows is 'touched', which is for one process, "
                f"but there are {processes}; use 'all', or one process"
            )


def check_same_run(run_hash: str, processes: Processes) -> None:
    """Raise `InputError` when processes have different run hashes or versions of torch.

    `run_hash` is the run hash in this process. It differs where the corpus or the arguments do, or
    where other code makes another config of them.
    """
    local = {"run": run_hash, "torch": torch.__version__, "host": socket.gethostname()}
    reports = processes.gathered(local)
    first = reports[0]
    for rank, report in enumerate(reports):
        for name in ("run", "torch"):
            if report[name] != first[name]:
                raise InputError(
                    f"{name} of rank {rank} on {report['host']} is {report[name]}, of rank 0 on "
                    f"{first['host']} {first[name]}; give every machine the same corpus, code, "
                    "arguments and versions"
                )
