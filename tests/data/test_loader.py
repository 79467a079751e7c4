"""Epoch order, batches, rank shards: functions of (seed, epoch); nothing is lost or doubled."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from research.data import loader as loading
from research.data.batch import Batch
from research.data.catalogue import Catalogue
from research.data.corpus import Corpus
from research.data.loader import BatchConfig, Loader
from research.data.splits import LeaveOneOut, Ranges
from research.data.windows import EveryPrefix, LastItems, Sliding, WindowsConfig
from research.errors import InputError
from research.objectives.masking import MaskItems
from tests.data.reference_loader import SlowLoader, Step, windows_of
from tests.support.synthetic import flat, write_histories

ROWS = 23
HISTORIES = [[user % 7] * (1 + user % 6) for user in range(ROWS)]
BY_TOKENS = BatchConfig(sequences_per_batch=None, tokens_per_batch=10)
BY_ROWS = BatchConfig(sequences_per_batch=5)


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return write_histories(tmp_path / "loader", HISTORIES, num_items=7)


def whole_of(corpus: Corpus) -> Ranges:
    return Ranges(np.arange(corpus.num_users), corpus.offsets[:-1], corpus.offsets[1:])


def loader_of(
    corpus: Corpus, config: BatchConfig, *, seed: int = 0, rank: int = 0, world: int = 1
) -> Loader:
    windows = LastItems().windows(whole_of(corpus), 5)
    return Loader(corpus, windows, config, length=5, seed=seed, rank=rank, world=world)


def rows_of(loader: Loader, epoch: int) -> list[list[int]]:
    return [batch.rows_S.tolist() for batch in loader.batches(epoch)]


def order_of(loader: Loader, epoch: int) -> list[int]:
    return loader.rows_at(epoch, torch.arange(loader.num_rows)).tolist()


def test_a_batch_holds_the_windows_that_its_rows_name(corpus: Corpus) -> None:
    batch: Batch
    for batch in loader_of(corpus, BY_ROWS).batches(0):
        bounds = batch.packed.offsets.tolist()
        for place, row in enumerate(batch.rows_S.tolist()):
            assert (
                batch.packed.items_T[bounds[place] : bounds[place + 1]].tolist() == HISTORIES[row]
            )
        assert batch.users_S.tolist() == batch.rows_S.tolist()
        assert batch.packed.longest == max(len(HISTORIES[row]) for row in batch.rows_S.tolist())
        assert batch.length == 5


@pytest.mark.parametrize("config", [BY_ROWS, BY_TOKENS], ids=["rows", "tokens"])
def test_an_epoch_shows_every_row_once(corpus: Corpus, config: BatchConfig) -> None:
    loader = loader_of(corpus, config)
    for epoch in range(3):
        rows = [row for batch in rows_of(loader, epoch) for row in batch]
        assert sorted(rows) == list(range(ROWS))


def test_the_last_smaller_batch_is_kept(corpus: Corpus) -> None:
    sizes = [len(batch) for batch in rows_of(loader_of(corpus, BY_ROWS), 0)]
    assert sizes == [5, 5, 5, 5, 3]


def test_order_is_a_function_of_seed_and_epoch(corpus: Corpus) -> None:
    same = [order_of(loader_of(corpus, BY_ROWS, seed=4), 2) for _ in range(2)]
    assert same[0] == same[1]
    assert order_of(loader_of(corpus, BY_ROWS, seed=4), 3) != same[0]
    assert order_of(loader_of(corpus, BY_ROWS, seed=5), 2) != same[0]


def test_no_token_batch_is_over_its_budget_unless_one_row_is(corpus: Corpus) -> None:
    config = BatchConfig(sequences_per_batch=None, tokens_per_batch=4)
    for batch in loader_of(corpus, config).batches(0):
        assert batch.packed.num_tokens <= 4 or len(batch.rows_S) == 1


def test_cuts_by_hand() -> None:
    def cut(config: BatchConfig, lengths: list[int]) -> list[int]:
        return config.cuts(np.cumsum(lengths))

    assert cut(BY_TOKENS, [3, 3, 4, 11, 1, 1, 9]) == [3, 4, 6, 7]
    assert cut(BY_TOKENS, [10, 10]) == [1, 2]
    assert cut(BY_ROWS, [1] * 4) == [4]
    assert cut(BY_ROWS, [1] * 5) == [5]
    assert cut(BY_ROWS, [1] * 11) == [5, 10, 11]


@pytest.mark.parametrize("config", [BY_ROWS, BY_TOKENS], ids=["rows", "tokens"])
@pytest.mark.parametrize("world", [2, 3, 8])
def test_ranks_share_out_every_batch(corpus: Corpus, config: BatchConfig, world: int) -> None:
    whole = rows_of(loader_of(corpus, config), 1)
    shares = [
        rows_of(loader_of(corpus, config, rank=rank, world=world), 1) for rank in range(world)
    ]
    for number, batch in enumerate(whole):
        dealt = [share[number] for share in shares]
        assert sorted(row for rows in dealt for row in rows) == sorted(batch)
        assert max(map(len, dealt)) - min(map(len, dealt)) <= 1


def test_a_share_may_be_empty(corpus: Corpus) -> None:
    config = BatchConfig(sequences_per_batch=22)
    last = list(loader_of(corpus, config, rank=3, world=4).batches(0))[-1]
    assert last.rows_S.tolist() == []
    assert last.packed.num_tokens == 0


@pytest.mark.parametrize("config", [BY_ROWS, BY_TOKENS], ids=["rows", "tokens"])
def test_an_epoch_continues_from_any_batch(corpus: Corpus, config: BatchConfig) -> None:
    loader = loader_of(corpus, config)
    whole = list(loader.batches(1))
    rest = list(loader.batches(1, whole[1].rows_done - ROWS))
    assert len(rest) == len(whole) - 2
    for ours, theirs in zip(rest, whole[2:], strict=True):
        assert (ours.rows_done, ours.step_tokens) == (theirs.rows_done, theirs.step_tokens)
        assert torch.equal(ours.rows_S, theirs.rows_S)
        assert torch.equal(ours.random_states_S, theirs.random_states_S)
        assert torch.equal(ours.packed.items_T, theirs.packed.items_T)


def states_by_row(loaders: list[Loader], epoch: int) -> dict[int, int]:
    return {
        row: state
        for loader in loaders
        for batch in loader.batches(epoch)
        for row, state in zip(batch.rows_S.tolist(), batch.random_states_S.tolist(), strict=True)
    }


def test_random_states_do_not_depend_on_batches_or_ranks(corpus: Corpus) -> None:
    alone = states_by_row([loader_of(corpus, BY_ROWS)], 1)
    ranks = [loader_of(corpus, BY_TOKENS, rank=rank, world=3) for rank in range(3)]
    assert states_by_row(ranks, 1) == alone
    assert len(set(alone.values())) == ROWS


def test_random_states_differ_between_epochs_and_seeds(corpus: Corpus) -> None:
    first = states_by_row([loader_of(corpus, BY_ROWS)], 0)
    assert not set(first.values()) & set(states_by_row([loader_of(corpus, BY_ROWS)], 1).values())
    other = states_by_row([loader_of(corpus, BY_ROWS, seed=1)], 0)
    assert not set(first.values()) & set(other.values())


def test_with_replacement_rows_repeat_and_draw_other_masks(corpus: Corpus) -> None:
    config = BatchConfig(sequences_per_batch=5, replacement=True)
    batches = list(loader_of(corpus, config).batches(0))
    rows = [row for batch in batches for row in batch.rows_S.tolist()]
    states = [state for batch in batches for state in batch.random_states_S.tolist()]
    assert len(rows) == ROWS
    assert len(set(rows)) < ROWS
    assert len(set(states)) == ROWS


def test_with_replacement_every_row_is_drawn_alike(corpus: Corpus) -> None:
    config = BatchConfig(replacement=True)
    loader = loader_of(corpus, config)
    drawn = torch.cat([loader.rows_at(epoch, torch.arange(ROWS)) for epoch in range(400)])
    counts = torch.bincount(drawn, minlength=ROWS)
    # Chi-square with 22 degrees of freedom exceeds 56.0 with probability 1e-4.
    assert ((counts - 400) ** 2 / 400).sum() < 56.0


def test_masks_of_a_row_differ_between_epochs(corpus: Corpus) -> None:
    split = LeaveOneOut().split(corpus)
    catalogue = Catalogue.of(corpus, split)
    loader = loader_of(corpus, BatchConfig(sequences_per_batch=100))
    masked = []
    for epoch in range(2):
        (batch,) = loader.batches(epoch)
        view = MaskItems(rate=0.5).view(batch, catalogue)
        bounds = view.packed.offsets.tolist()
        rows = {
            row: view.packed.items_T[bounds[place] : bounds[place + 1]].tolist()
            for place, row in enumerate(batch.rows_S.tolist())
        }
        masked.append(rows)
    assert masked[0] != masked[1]


RULES: list[WindowsConfig] = [LastItems(), EveryPrefix(), Sliding(stride=2)]
CONFIGS = {
    "rows": BY_ROWS,
    "tokens": BY_TOKENS,
    "replacement": BatchConfig(sequences_per_batch=5, replacement=True),
    "tokens, replacement": BatchConfig(
        sequences_per_batch=None, tokens_per_batch=10, replacement=True
    ),
    "one row": BatchConfig(sequences_per_batch=1),
    "a few tokens": BatchConfig(sequences_per_batch=None, tokens_per_batch=1),
    "all rows": BatchConfig(sequences_per_batch=1000),
    "all tokens": BatchConfig(sequences_per_batch=None, tokens_per_batch=1000),
}


def twins_of(
    corpus: Corpus, rule: WindowsConfig, config: BatchConfig, rank: int = 0, world: int = 1
) -> tuple[Loader, SlowLoader]:
    """A loader of windows of up to four items, and what lists them all."""
    whole = whole_of(corpus)
    fast = Loader(corpus, rule.windows(whole, 3), config, length=3, seed=7, rank=rank, world=world)
    listed = windows_of(rule, whole, 3)
    return fast, SlowLoader(corpus=corpus, windows=listed, config=config, seed=7)


def assert_share(batch: Batch, step: Step, rank: int, world: int) -> None:
    """A batch is a rank's share of a step."""
    rows = step.rows[rank::world]
    assert batch.rows_S.tolist() == [row.number for row in rows]
    assert batch.users_S.tolist() == [row.user for row in rows]
    assert [state % 2**64 for state in batch.random_states_S.tolist()] == [
        row.state for row in rows
    ]
    assert batch.packed.items_T.tolist() == [item for row in rows for item in row.items]
    assert batch.packed.offsets.diff().tolist() == [len(row.items) for row in rows]
    assert (batch.rows_done, batch.step_tokens) == (step.rows_done, step.tokens)


@pytest.mark.parametrize("chunk", [1, 7, loading.CHUNK])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_batches_are_those_of_a_loader_that_lists_everything(
    corpus: Corpus,
    rule: WindowsConfig,
    name: str,
    chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loading, "CHUNK", chunk)
    for rank, world in [(0, 1), (0, 3), (2, 3)]:
        fast, slow = twins_of(corpus, rule, CONFIGS[name], rank, world)
        steps = slow.epoch(0) + slow.epoch(1)
        batches = [*fast.batches(0), *fast.batches(1)]
        for batch, step in zip(batches, steps, strict=True):
            assert_share(batch, step, rank, world)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_stream_goes_on_from_the_rows_of_any_batch(corpus: Corpus, name: str) -> None:
    fast, slow = twins_of(corpus, EveryPrefix(), CONFIGS[name])
    steps = [step for epoch in range(3) for step in slow.epoch(epoch)]
    for number, rows in enumerate([0, *(step.rows_done for step in steps[:-3])]):
        for batch, step in zip(islice(fast.stream(rows), 3), steps[number:], strict=False):
            assert_share(batch, step, 0, 1)


def test_a_long_order_is_walked_like_a_short_one(tmp_path: Path) -> None:
    # Enough rows for an order that is not sorted, and for two chunks.
    histories = [[user % 7] * (1 + user % 3) for user in range(17_000)]
    corpus = write_histories(tmp_path / "long", histories, num_items=7)
    config = BatchConfig(sequences_per_batch=None, tokens_per_batch=3000)
    fast, slow = twins_of(corpus, LastItems(), config)
    for batch, step in zip(fast.batches(4), slow.epoch(4), strict=True):
        assert_share(batch, step, 0, 1)


def test_no_window_at_all_is_refused(corpus: Corpus) -> None:
    nothing = Ranges(flat([]), flat([]), flat([]))
    with pytest.raises(InputError, match="corpus loader: no window is left to train on"):
        Loader(corpus, LastItems().windows(nothing, 5), BY_ROWS, length=5, seed=0)


@pytest.mark.parametrize(
    "sizes", [(None, None), (5, 5), (0, None), (None, 0), (-1, None)]
)  # fmt: skip
def test_exactly_one_size_must_be_set(sizes: tuple[int | None, int | None]) -> None:
    with pytest.raises(InputError) as caught:
        BatchConfig(sequences_per_batch=sizes[0], tokens_per_batch=sizes[1])
    assert f"sequences_per_batch is {sizes[0]} and tokens_per_batch is {sizes[1]}" in str(
        caught.value
    )
    assert "set exactly one of them, to at least 1" in str(caught.value)


def test_no_fewer_than_one_piece_is_cut() -> None:
    with pytest.raises(InputError, match=r"batches\.micro_batches is 0; it must be at least 1"):
        BatchConfig(micro_batches=0)
