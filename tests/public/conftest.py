"""A small trained run, and its corpus, for the tests of the Python interface."""

from __future__ import annotations

from pathlib import Path

import pytest

import sixfold as sf
from tests.support.small_runs import ENCODER, FINETUNE, corpus_in


@pytest.fixture(scope="session")
def small_corpus(tmp_path_factory: pytest.TempPathFactory) -> sf.Corpus:
    """15 users, 10 items."""
    return corpus_in(tmp_path_factory.mktemp("public") / "small")


@pytest.fixture(scope="session")
def small_config() -> sf.RunConfig:
    """One stage of two epochs."""
    return sf.RunConfig(encoder=ENCODER, stages=(FINETUNE,))


@pytest.fixture(scope="session")
def small_run(
    small_corpus: sf.Corpus, small_config: sf.RunConfig, tmp_path_factory: pytest.TempPathFactory
) -> sf.Run:
    """The run of `small_config` on `small_corpus`."""
    out: Path = tmp_path_factory.mktemp("runs") / "run"
    return sf.train(small_config, small_corpus, out=out)
