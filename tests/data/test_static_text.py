"""Vectors of texts are the mean of the vectors of their tokens; nothing is fetched for them."""

from __future__ import annotations

import socket
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

import research.data.preparation.static_text as static_text
from research.data.corpus import Corpus
from research.data.names import Names
from research.data.preparation.static_text import embed_texts, embed_titles
from research.data.preparation.vector_files import read_vectors
from research.errors import InputError
from tests.support.synthetic import write_histories

needs_weights = pytest.mark.skipif(
    find_spec("wordllama") is None, reason="the extra text is not installed"
)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*given: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def titled(tmp_path: Path) -> Corpus:
    corpus = write_histories(tmp_path / "films", [[0, 1, 2]], num_items=3)
    titles = Names.from_strings(["Toy Story (1995)", "", "Heat (1995)"])
    return replace(corpus, item_titles=titles)


@needs_weights
@pytest.mark.usefixtures("offline")
def test_a_text_is_the_mean_of_its_tokens_of_length_one() -> None:
    from safetensors.numpy import load_file
    from tokenizers import Tokenizer

    folder = static_text._folder()
    tokenizer = Tokenizer.from_file(str(folder / static_text.TOKENIZER))
    (table,) = load_file(folder / static_text.WEIGHTS).values()
    texts = ["Toy Story (1995)", "heat"]
    found = embed_texts(texts)
    for text, vector in zip(texts, found, strict=True):
        rows = [
            table[token].astype(np.float64)
            for token in tokenizer.encode(text, add_special_tokens=False).ids
        ]
        mean = sum(rows) / len(rows)
        np.testing.assert_allclose(vector, mean / np.sqrt((mean**2).sum()), rtol=1e-5, atol=1e-7)
    assert found.dtype == np.float32
    assert embed_texts([]).shape == (0, 256)
    assert not embed_texts([""]).any()


@needs_weights
@pytest.mark.usefixtures("offline")
def test_texts_that_mean_alike_are_nearer_than_others() -> None:
    film, like_it, other = embed_texts(["a war movie", "film about war", "chocolate cake recipe"])
    assert film @ like_it > film @ other + 0.2


@needs_weights
@pytest.mark.usefixtures("offline")
def test_titles_are_written_as_a_file_of_vectors(titled: Corpus, tmp_path: Path) -> None:
    file = read_vectors(embed_titles(titled, tmp_path / "titles.npz"))
    assert list(file.ids) == ["i0", "i1", "i2"]
    np.testing.assert_array_equal(file.vectors_NE, embed_texts(list(titled.item_titles)))


def test_what_is_missing_is_named(
    titled: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="has no titles"):
        embed_titles(replace(titled, item_titles=None), tmp_path / "titles.npz")
    with pytest.raises(InputError, match=r"give it that ending"):
        embed_titles(titled, tmp_path / "titles.csv")
    monkeypatch.setattr(static_text, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"wordllama, which is not installed; .*sixfold\[text\]"):
        embed_texts(["a"])
