"""What a corpus says of its users, in raw ids, as tests compare it."""

from research.data.corpus import Corpus


def histories(corpus: Corpus) -> dict[str, list[str]]:
    """The items of each user, oldest first, all as raw ids."""
    return {
        user: [corpus.item_names[item] for item in corpus.items[start:stop].tolist()]
        for user, start, stop in zip(
            corpus.user_names, corpus.offsets[:-1], corpus.offsets[1:], strict=True
        )
    }


def attributes(corpus: Corpus) -> dict[str, list[str]]:
    """The names of the attributes of each item, by its raw id."""
    bounds = corpus.attribute_offsets.tolist()
    return {
        item: [corpus.attribute_names[a] for a in corpus.attribute_ids[bounds[i] : bounds[i + 1]]]
        for i, item in enumerate(corpus.item_names)
    }
