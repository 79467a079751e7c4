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
