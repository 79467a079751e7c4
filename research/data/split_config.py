"""`AnySplit`: every kind of split that a config may name, and how a corpus is split by one."""

from __future__ import annotations

from dataclasses import replace

from research.data.cold_items import ColdItems
from research.data.corpus import Corpus
from research.data.splits import Split, SplitConfig
from research.data.user_range import UserRange

AnySplit = SplitConfig | ColdItems


def split_corpus(config: AnySplit, corpus: Corpus) -> tuple[Corpus, Split]:
    """The corpus as the split's ranges mean it, and the split; `InputError` as for the config's.

    It is `corpus` itself, but where items are held out: then each history is in another order.
    """
    if isinstance(config, ColdItems):
        return config.arranged_split(corpus)
    return corpus, config.split(corpus)


def with_fewer_users(split: Split, share: float, seed: int) -> Split:
    """The split with this share of its training rows, at least one; the questions stay.

    Rows are drawn by `seed`, and those of a smaller share are among those of a larger one.
    """
    if share == 1.0:
        return split
    return replace(split, training=UserRange(stop=share).of(split.training, seed))
