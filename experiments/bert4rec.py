"""Does every BERT4Rec recipe end above popularity, from 300 users to 35,598?

Cells: `popularity`, and the recipes of `baselines/bert4rec.py` except the authors' own, which takes
400,000 steps (on two CPU cores about two days at ML-1M's sizes).

Command: python -m experiments.shop --users 300 --out data/shop.csv
         python -m research prepare csv --raw data/shop.csv --out data/corpora/shop
         python -m research study experiments.bert4rec --corpora data/corpora/shop ml-100k
             data/corpora/LastFM data/corpora/Beauty data/corpora/Sports_and_Outdoors
Hardware: CPU; one thread for each run.
Results: experiments/LOG.md.
"""

from __future__ import annotations

from dataclasses import replace

from baselines.bert4rec import beauty, cloze, ml_1m, port
from baselines.popularity import popularity
from research.runs.config import EvaluationConfig, RunConfig
from research.studies.study import Study


def cells() -> dict[str, RunConfig]:
    """Popularity and the recipes, all evaluated by the same metrics and candidates."""
    recipes = {"cloze": cloze(), "beauty": beauty(), "ml-1m": ml_1m(), "port": port()}
    evaluated_alike = {
        name: replace(config, evaluation=EvaluationConfig()) for name, config in recipes.items()
    }
    return {"popularity": popularity(), **evaluated_alike}


def study() -> Study:
    """Every recipe compared with popularity."""
    return Study(
        name="bert4rec",
        question="Does every BERT4Rec recipe end above popularity?",
        cells=cells(),
        base="popularity",
    )
