"""Equal budgets: how many steps, tokens or seconds every run of a study may spend.

A `Study` applies its budget to each cell's config before the run is planned; a budget can also be
given on the command line as `--budget tokens=2000000`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from research.config import check_types
from research.errors import InputError
from research.runs.config import RunConfig
from research.training.config import StageConfig


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What every run of a study spends over all its stages; it replaces the stages' own limits.

    Early stopping (patience) is off under a budget; a stage still keeps the weights of its best
    validation.
    """

    of: Literal["steps", "tokens", "seconds"]
    """The unit: optimizer steps, tokens of windows before corruption, or seconds of wall time for
    training and validation. Steps and tokens give the same run on every machine, seconds do not."""
    amount: float
    """How many of these units a run has; above 0."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """By stage name, the weight of its share of the amount; a stage not named here has 1."""

    def __post_init__(self) -> None:
        check_types(self)
        if self.amount <= 0:
            raise InputError(f"budget.amount is {self.amount}; it must be above 0")
        for name, share in self.shares.items():
            if share <= 0:
                raise InputError(f"budget.shares.{name} is {share}; it must be above 0")

    def __str__(self) -> str:
        unit = {
            "steps": "optimizer steps",
            "tokens": "tokens",
            "seconds": "seconds (and a last validation)",
        }[self.of]
        shares = ", ".join(f"{name} {share:g}" for name, share in self.shares.items())
        division = f", divided as {shares}" if shares else ""
        return f"{self.amount:,.10g} {unit} a run, all stages together{division}"

    def apply_to(self, config: RunConfig) -> RunConfig:
        """The run with this budget divided among its stages; a counting ranker has no stages.

        Raises `InputError` when a stage's share rounds down to no step or token.
        """
        shares = [self.shares.get(stage.name, 1.0) for stage in config.stages]
        stages = []
        spent = 0
        for index, (stage, share) in enumerate(zip(config.stages, shares)):
            amount = self.amount * share / sum(shares)
            if self.of != "seconds":
                # The last stage gets what rounding down left over, so that the sum is exact.
                amount = int(amount) if index < len(shares) - 1 else int(self.amount) - spent
                spent += int(amount)
                if amount < 1:
                    raise InputError(
                        f"a budget of {self.amount:g} {self.of} leaves stage {stage.name} none; "
                        "raise budget.amount or the stage's share"
                    )
            stages.append(self._limit(stage, amount))
        return replace(config, stages=tuple(stages))

    def _limit(self, stage: StageConfig, amount: float) -> StageConfig:
        validation = stage.validation
        return replace(
            stage,
            epochs=None,
            steps=int(amount) if self.of == "steps" else None,
            tokens=int(amount) if self.of == "tokens" else None,
            seconds=amount if self.of == "seconds" else None,
            validation=None if validation is None else replace(validation, patience=None),
        )


def budget_of(text: str) -> Budget:
    """Parse a budget such as `tokens=2000000`; raises `InputError` for anything else."""
    of, _, amount = text.partition("=")
    try:
        number = float(amount)
    except ValueError:
        number = float("nan")
    if of not in ("steps", "tokens", "seconds") or not number > 0:
        raise InputError(
            f"--budget is {text!r}; write steps=N, tokens=N or seconds=N, N above 0, for example "
            "tokens=2000000"
        )
    return Budget(of=of, amount=number)  # type: ignore[arg-type]
