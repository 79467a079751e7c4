"""Vectors of texts by a static sentence encoder: the mean of the vectors of a text's tokens.

The encoder is the one whose weights are inside the wheel of the package wordllama (Miller 2024,
l2_supercat at 256 numbers: token embeddings distilled from language models); nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from research.data.corpus import Corpus
from research.errors import InputError, optional_import
from research.storage.atomic import replacing

ENCODER = "wordllama 256"
WEIGHTS = Path("weights") / "l2_supercat_256.safetensors"
TOKENIZER = Path("tokenizers") / "l2_supercat_tokenizer_config.json"
# The longest text in tokens; what follows is left out.
MAX_TOKENS = 512
_TEXTS_AT_ONCE = 1024
_WHAT, _REMEDY = "a vector of a text", "install the extra: pip install 'sixfold[text]'"


def embed_texts(texts: Sequence[str]) -> NDArray[np.float32]:
    """[N, 256]: the mean of the token vectors of each text, of length 1; zeros for an empty text.

    `InputError` where the extra `text` is not installed.
    """
    folder = _folder()
    with optional_import(("tokenizers",), _WHAT, _REMEDY):
        from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    (table,) = load_file(folder / WEIGHTS).values()
    vectors = np.zeros((len(texts), table.shape[1]), dtype=np.float32)
    for first in range(0, len(texts), _TEXTS_AT_ONCE):
        part = [str(text) for text in texts[first : first + _TEXTS_AT_ONCE]]
        for place, encoded in enumerate(tokenizer.encode_batch(part, add_special_tokens=False)):
            if encoded.ids:
                mean = table[encoded.ids].astype(np.float64).mean(axis=0)
                vectors[first + place] = mean / max(float(np.linalg.norm(mean)), 1e-12)
    return vectors


def embed_titles(corpus: Corpus, path: Path | str) -> Path:
    """Write the vectors of a corpus's titles to a `.npz` file, and return its path.

    The file is one for `sf.attach_vectors` and `prepare --item-vectors`. An item without a title
    has zeros. `InputError` for a corpus without titles, another ending, and where the extra `text`
    is not installed.

        >>> path = sf.embed_titles(corpus, "titles.npz")
        >>> corpus = sf.attach_vectors(corpus, path, "data/corpora/films", encoder="wordllama 256")
    """
    path = Path(path)
    if path.suffix != ".npz":
        raise InputError(f"{path}: vectors of titles are written as .npz; give it that ending")
    if corpus.item_titles is None:
        raise InputError(
            f"corpus {corpus.name} has no titles; prepare it with --title-column, or embed texts "
            "of your own with sf.embed_texts"
        )
    vectors = embed_texts(list(corpus.item_titles))
    with replacing(path) as file:
        np.savez(file, ids=np.array(list(corpus.item_names)), vectors=vectors)
    return path


def _folder() -> Path:
    """The folder of the package wordllama, which is not imported: only its files are read."""
    found = find_spec("wordllama")
    if found is None or not found.submodule_search_locations:
        raise InputError(f"{_WHAT} needs wordllama, which is not installed; {_REMEDY}")
    folder = Path(found.submodule_search_locations[0])
    for file in (WEIGHTS, TOKENIZER):
        if not (folder / file).is_file():
            raise InputError(f"{folder / file} is missing; install the package wordllama again")
    return folder
