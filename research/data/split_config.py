"""`AnySplit`: every kind of split that a config may name, and how a corpus is split by one."""

from __future__ import annotations

from research.data.cold_items import ColdItems
from research.data.corpus import Corpus
from research.data.splits import Split, SplitConfig

AnySplit = SplitConfig | ColdItems


def split_corpus(config: AnySplit, corpus: Corpus) -> tuple[Corpus, Split]:
    """The corpus as the split's ranges mean it, and the split; `InputError` as for the config's.

    It is `corpus` itself, but where items are held out: then each history is in another order.
    """
    if isinstance(config, ColdItems):
        return config.arranged_split(corpus)
    return corpus, config.split(corpus)
