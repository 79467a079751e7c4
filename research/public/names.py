"""What `import sixfold as sf` offers: functions, and the classes that configs are written with.

The functions go from data to results: `prepare`, `load_corpus`, `config`, `change`, `train`,
`load`, `study`, `tune`, `report`, `export`, `import_hub`. Each class is the one that the project
itself uses.
"""

from __future__ import annotations

from research.data.cold_items import ColdItems
from research.data.corpus import Corpus
from research.data.loader import BatchConfig
from research.data.negatives import NegativesConfig
from research.data.preparation.attach import attach_vectors
from research.data.preparation.options import PrepareConfig
from research.data.preparation.static_text import embed_texts, embed_titles
from research.data.splits import (
    AtQuantile,
    AtTime,
    ByLastItem,
    ByTime,
    ByUsers,
    GlobalTemporal,
    LeaveOneOut,
    TemporalCut,
    TimepointLeaveOneOut,
    UserHoldout,
)
from research.data.user_range import UserRange
from research.data.windows import EveryPrefix, LastItems, Sliding
from research.errors import InputError
from research.model.bsarec import BSARec
from research.model.caser import CaserConfig
from research.model.compute import ComputeConfig
from research.model.fmlp import FMLP
from research.model.gru import GRUConfig
from research.model.hstu import HSTU
from research.model.item_table import ItemTableConfig
from research.model.ligr import LiGR
from research.model.positions import LearnedPositions
from research.model.relative_positions import RelativePositions
from research.model.rotary import Rotary
from research.model.rotary_time import RotaryTime
from research.model.transformer_block import PostNorm, PreNorm, QueryNorm
from research.model.transformer_config import TransformerConfig
from research.objectives.aap import AAPConfig
from research.objectives.cloze import ClozeConfig
from research.objectives.contrast import ContrastConfig
from research.objectives.dropout_views import DropoutViews
from research.objectives.head import HeadConfig
from research.objectives.in_batch_softmax import InBatchSoftmax
from research.objectives.losses import (
    BayesianPersonalizedRanking,
    BinaryCrossEntropy,
    FullSoftmax,
    GeneralizedBCE,
    SampledSoftmax,
)
from research.objectives.map import MAPConfig
from research.objectives.masked_vector import MaskedVectorConfig
from research.objectives.masking import MaskItems
from research.objectives.mip import MIPConfig
from research.objectives.mixed_softmax import MixedSoftmax
from research.objectives.next_item import NextItemConfig
from research.objectives.sp import SPConfig
from research.public.preparing import load_corpus, prepare
from research.public.publishing import export, import_hub
from research.public.run import Run, load
from research.public.study import StudyResult, report, study
from research.public.training import change, train
from research.public.training import config_of as config
from research.public.tuning import tune
from research.runs.config import EvaluationConfig, RunConfig
from research.studies.cells import (
    grid,
    levels,
    one_factor,
    with_stage,
    without_objectives,
    without_stage,
)
from research.studies.search import ASHA, TPE, MedianPruner, RandomSearch
from research.studies.space import Trial
from research.training.averaging import CheckpointAverage, ExponentialMovingAverage
from research.training.config import StageConfig, ValidationConfig
from research.training.optimizer import OptimizerConfig
from research.training.schedule import ScheduleConfig

__all__ = [
    "ASHA",
    "FMLP",
    "HSTU",
    "TPE",
    "AAPConfig",
    "AtQuantile",
    "AtTime",
    "BSARec",
    "BatchConfig",
    "BayesianPersonalizedRanking",
    "BinaryCrossEntropy",
    "ByLastItem",
    "ByTime",
    "ByUsers",
    "CaserConfig",
    "CheckpointAverage",
    "ClozeConfig",
    "ColdItems",
    "ComputeConfig",
    "ContrastConfig",
    "Corpus",
    "DropoutViews",
    "EvaluationConfig",
    "EveryPrefix",
    "ExponentialMovingAverage",
    "FullSoftmax",
    "GRUConfig",
    "GeneralizedBCE",
    "GlobalTemporal",
    "HeadConfig",
    "InBatchSoftmax",
    "InputError",
    "ItemTableConfig",
    "LastItems",
    "LearnedPositions",
    "LeaveOneOut",
    "LiGR",
    "MAPConfig",
    "MIPConfig",
    "MaskItems",
    "MaskedVectorConfig",
    "MedianPruner",
    "MixedSoftmax",
    "NegativesConfig",
    "NextItemConfig",
    "OptimizerConfig",
    "PostNorm",
    "PreNorm",
    "PrepareConfig",
    "QueryNorm",
    "RandomSearch",
    "RelativePositions",
    "Rotary",
    "RotaryTime",
    "Run",
    "RunConfig",
    "SPConfig",
    "SampledSoftmax",
    "ScheduleConfig",
    "Sliding",
    "StageConfig",
    "StudyResult",
    "TemporalCut",
    "TimepointLeaveOneOut",
    "TransformerConfig",
    "Trial",
    "UserHoldout",
    "UserRange",
    "ValidationConfig",
    "attach_vectors",
    "change",
    "config",
    "embed_texts",
    "embed_titles",
    "export",
    "grid",
    "import_hub",
    "levels",
    "load",
    "load_corpus",
    "one_factor",
    "prepare",
    "report",
    "study",
    "train",
    "tune",
    "with_stage",
    "without_objectives",
    "without_stage",
]
