"""Checks, when a run is built, what a stage's objectives need of encoder, corpus and batches."""

from __future__ import annotations

from research.config_index import is_config_class
from research.errors import InputError
from research.model.backbone import BackboneConfig, check_direction
from research.model.item_table import ItemTable
from research.objectives.base import Corruption, Objective
from research.objectives.head import Head
from research.objectives.losses import SampledLoss
from research.training.config import StageConfig
from research.training.multi_objective import MultiObjectiveModel


def check_objectives(stage: StageConfig, model: MultiObjectiveModel) -> None:
    """Raise `InputError` for an objective that cannot work in this stage, or can have no target."""
    training = model.catalogue.training.ranges
    longest = int((training.stops - training.starts).max(initial=0))
    for key, part in model.objectives.items():
        assert isinstance(part, Objective)
        asker = f"stage {stage.name}: objective {key}"
        corruption = vars(part).get("corruption")
        if not isinstance(corruption, Corruption) or not is_config_class(type(corruption)):
            raise InputError(
                f"{asker}: its corruption is {corruption!r:.100}; it must be a dataclass below "
                "Corruption, written @dataclass(frozen=True, kw_only=True), since objectives with "
                "equal corruptions share an encoding"
            )
        check_direction(model.encoder.config, causal=corruption.causal, asker=asker)
        check_fields_read(model.encoder.config, corruption.fields, asker)
        own_tables = [module for module in part.modules() if isinstance(module, ItemTable)]
        if model.encoder.item_table.projection is not None and own_tables:
            raise InputError(
                f"{asker} scores by a table of its own (head.table is 'own'), which knows no "
                "vectors, but items.vectors is on; use the encoder's table ('tied'), or set "
                "items.vectors to none"
            )
        check_mask_is_drawn_from_the_table(part, asker)
        if part.couples_rows == "states" and stage.batches.micro_batches > 1:
            raise InputError(
                f"{asker} compares the states of all rows of a step, so a step cannot be cut: "
                f"batches.micro_batches is {stage.batches.micro_batches}; set it to 1 (more "
                "processes, a smaller batch or compute.recompute save memory too)"
            )
        if part.couples_rows == "states" and stage.batches.sequences_per_batch == 1:
            raise InputError(
                f"{asker} compares each row with the other rows of its step, but "
                "batches.sequences_per_batch is 1; set it to 2 or more"
            )
        if part.may_be_negative and stage.combination.learns:
            raise InputError(
                f"{asker} has a loss that can be below 0, for which a learned weight grows without "
                f"end: combination is {type(stage.combination).__name__}; choose WeightedSum, or "
                "set the loss's corrected to False"
            )
        # A causal view reads all items of its window but the last, which is only predicted.
        one_more = corruption.causal or corruption.hides_newest
        rows_hold = min(longest, model.encoder.config.length + one_more)
        reason = part.no_target_reason(rows_hold, model.catalogue)
        if reason is not None and stage.objectives[key].weight > 0.0:
            raise InputError(
                f"{asker} can have no target: {reason} (the longest training row has {rows_hold} "
                f"items, after what is held out); leave {key} out, set its weight to 0, hold less "
                "out, or raise encoder.length"
            )


def check_mask_is_drawn_from_the_table(part: Objective, asker: str) -> None:
    """Raise `InputError` when the mask may be a negative and the head has no score for it."""
    loss = getattr(part, "item_loss", None)
    if not isinstance(loss, SampledLoss) or not loss.config.negatives.include_mask:
        return
    head = part.head
    assert isinstance(head, Head)
    if head.item_table is not None or head.item_bias is not None:
        raise InputError(
            f"{asker}: negatives.include_mask draws the mask, but only the encoder's table has a "
            "row for it; set head.table to 'tied' and head.bias to False, or include_mask to False"
        )


def check_fields_read(config: BackboneConfig, needed: tuple[str, ...], asker: str) -> None:
    """Raise `InputError` when a corruption sets a field that the encoder would not read."""
    for name in needed:
        readable = (*config.fields, *config.optional_fields)
        if name not in readable:
            raise InputError(
                f"{asker} sets the token field {name!r}, which encoder "
                f"({type(config).__name__}) does not read (it reads: "
                f"{', '.join(readable) or 'none'}); choose an encoder that does"
            )
