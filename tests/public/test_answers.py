"""What a run answers: recommendations, embeddings and neighbors, by raw ids."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import sixfold as sf
from research.packed import Packed
from tests.support.small_runs import FINETUNE, PRETRAIN


def history_of(corpus: sf.Corpus, user: int) -> list[str]:
    start, stop = corpus.offsets[user : user + 2].tolist()
    return [corpus.item_names[item] for item in corpus.items[start:stop].tolist()]


def test_all_users_get_the_items_that_score_highest(small_run: sf.Run) -> None:
    frame = small_run.recommend(k=3)
    assert list(frame.columns) == ["user", "item", "title", "score", "rank", "ranked_by"]
    corpus, ranker = small_run.corpus, small_run.loaded[1]
    for user in range(corpus.num_users):
        history = history_of(corpus, user)
        items = [corpus.item_names.index(name) for name in history]
        encoded = ranker.encode(Packed.from_lists([items]), torch.tensor([user]))
        scores = encoded.scores(0, corpus.num_items)[0].tolist()
        left = [item for item in range(corpus.num_items) if item not in items]
        best = sorted(left, key=lambda item: -scores[item])[:3]
        rows = frame[frame["user"] == corpus.user_names[user]]
        assert list(rows["item"]) == [corpus.item_names[item] for item in best]
        assert list(rows["rank"]) == list(range(1, len(best) + 1))


def test_a_history_is_answered_as_its_user_is(small_run: sf.Run) -> None:
    corpus = small_run.corpus
    of_user = small_run.recommend([corpus.user_names[2]])
    of_history = small_run.recommend(histories=[history_of(corpus, 2), []])
    assert list(of_history.columns[:2]) == ["history", "item"]
    assert list(of_history[of_history["history"] == 0]["item"]) == list(of_user["item"])
    nobody = of_history[of_history["history"] == 1]
    assert set(nobody["ranked_by"]) == {"popularity"}
    assert nobody["score"].is_monotonic_decreasing


def test_candidates_exclusions_and_attributes(small_run: sf.Run) -> None:
    users = ["u1"]
    assert list(small_run.recommend(users, candidates=["i3"], seen="kept")["item"]) == ["i3"]
    assert "i3" not in set(small_run.recommend(users, exclude=["i3"], seen="kept")["item"])
    chosen = small_run.recommend(users, attributes=["a0"], seen="kept")["item"]
    assert set(chosen) == {"i0", "i3", "i6", "i9"}


def test_unknown_ids_are_an_error_or_counted(small_run: sf.Run) -> None:
    with pytest.raises(sf.InputError, match="users: 'u99' is not among"):
        small_run.recommend(["u99", "u1"])
    frame = small_run.recommend(["u99", "u1"], exclude=["i77"], unknown="skip")
    assert set(frame["user"]) == {"u1"}
    assert frame.attrs == {"unknown_users": 1, "unknown_events": 0, "unknown_items": 1}
    encoded = small_run.encode([["i1", "i77"]], unknown="skip")
    assert encoded.attrs["unknown_events"] == 1
    with pytest.raises(sf.InputError, match="users and histories are both given"):
        small_run.recommend(["u1"], histories=[["i1"]])
    with pytest.raises(sf.InputError, match="one text"):
        small_run.recommend("u1")
    with pytest.raises(sf.InputError, match="list of lists"):
        small_run.recommend(histories=["i1"])


def test_arguments_that_do_not_apply_are_refused(small_run: sf.Run) -> None:
    two = [["i1"], ["i1", "i2"]]
    with pytest.raises(sf.InputError, match="history='train' is for users of the corpus"):
        small_run.recommend(histories=two, history="train")
    with pytest.raises(sf.InputError, match="fields are of histories; users of the corpus"):
        small_run.encode(users=["u1"], fields={"time": [[1, 2]]})
    for times, message in (
        ({"segment": [[1], [1, 2]]}, "fields: 'segment' is no field of events; allowed: time"),
        ({"time": [[1], [1]]}, "fields: time needs lists as long as those of"),
        ({"time": [[1], [1.5, 2]]}, r"fields: time holds float64, as in 1\.0; give whole numbers"),
        ({"time": [[9], [8, 7]]}, "fields: time goes back from 8 to 7 in history 1"),
    ):
        with pytest.raises(sf.InputError, match=message):
            small_run.recommend(histories=two, fields=times)  # type: ignore[arg-type]
    # This encoder reads no times, so they change nothing.
    timed = small_run.recommend(histories=two, fields={"time": [[9], [8, 8]]})
    pd.testing.assert_frame_equal(timed, small_run.recommend(histories=two))


def test_one_value_in_place_of_a_list_is_refused(small_run: sf.Run) -> None:
    for arguments, message in (
        ({"users": 5}, "users is 5; give a list of raw ids"),
        ({"histories": [1, 2]}, "each of histories is 1; give a list of raw ids"),
        ({"histories": 3}, "histories: give a list of lists"),
        ({"exclude": None}, "exclude is None; give a list of raw ids"),
        ({"histories": [["i1"]], "fields": {"time": [3]}}, "fields: time needs lists as long"),
        ({"histories": [["i1"]], "fields": [[3]]}, r"fields is \[\[3\]\]; allowed: Mapping"),
    ):
        with pytest.raises(sf.InputError, match=message):
            small_run.recommend(**arguments)  # type: ignore[arg-type]


def test_numbers_that_are_not_whole_are_refused(small_run: sf.Run) -> None:
    for k, message in ((2.0, "k is 2.0; it must be a whole number"), (True, "k is True; it must")):
        with pytest.raises(sf.InputError, match=message):
            small_run.recommend(k=k)  # type: ignore[arg-type]
        with pytest.raises(sf.InputError, match=message):
            small_run.similar_items(k=k)  # type: ignore[arg-type]
    with pytest.raises(sf.InputError, match="batch_size is 0; it must be at least 1"):
        small_run.recommend(batch_size=0)
    assert len(small_run.recommend(["u1"], k=np.int64(2))) == 2  # type: ignore[arg-type]


def test_whole_numbers_are_raw_ids_too(small_config: sf.RunConfig, tmp_path: object) -> None:
    frame = pd.DataFrame({"user": [1, 1, 1, 2, 2, 2, 3, 3, 3], "item": [10, 20, 30] * 3})
    corpus = sf.prepare(frame, time=False, data_root=f"{tmp_path}")
    run = sf.train("popularity.popularity", corpus, out=f"{tmp_path}/run")
    ids = frame["user"].unique()
    assert set(run.recommend(ids, seen="kept")["user"]) == {"1", "2", "3"}
    answers = run.recommend(histories=[[10, np.int64(20)]])
    assert list(answers["item"]) == ["30"]


def test_embeddings_give_the_scores(small_run: sf.Run) -> None:
    items = small_run.item_embeddings()
    assert items.shape == (10, 4)
    assert (items.index.name, list(items.index)) == ("item", list(small_run.corpus.item_names))
    history = history_of(small_run.corpus, 0)
    encoded = small_run.encode([[], history])
    assert list(encoded.index) == [1]
    scores = (encoded @ items.T).loc[1]
    answers = small_run.recommend(histories=[history], seen="kept").set_index("item")["score"]
    np.testing.assert_allclose(answers, scores[answers.index], rtol=1e-6)
    of_user = small_run.encode(users=["u0"])
    assert of_user.index.tolist() == ["u0"]
    np.testing.assert_allclose(of_user.loc["u0"], encoded.loc[1], rtol=1e-6)


def test_scores_are_products_with_the_bias_added(
    small_corpus: sf.Corpus, small_config: sf.RunConfig, tmp_path: Path
) -> None:
    with_bias = replace(
        FINETUNE, objectives={"next": sf.NextItemConfig(head=sf.HeadConfig(bias=True))}
    )
    run = sf.train(replace(small_config, stages=(with_bias,)), small_corpus, out=tmp_path / "run")
    states = run.encode([["i1", "i2"]])
    scores = (states @ run.item_embeddings().T + run.item_bias()).loc[0]
    answers = run.recommend(histories=[["i1", "i2"]], seen="kept").set_index("item")["score"]
    np.testing.assert_allclose(answers, scores[answers.index], rtol=1e-5)
    assert run.item_bias().abs().max() > 0


def test_a_head_without_bias_adds_zero(small_run: sf.Run) -> None:
    bias = small_run.item_bias()
    assert list(bias.index) == list(small_run.corpus.item_names)
    assert bias.tolist() == [0.0] * 10


def test_similar_items_are_the_nearest_by_cosine(small_run: sf.Run) -> None:
    vectors = small_run.item_embeddings().to_numpy()
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit[4]
    cosines[4] = -2.0
    frame = small_run.similar_items(["i4"], k=3)
    assert list(frame["neighbor"]) == [f"i{item}" for item in np.argsort(-cosines)[:3]]
    np.testing.assert_allclose(frame["similarity"], np.sort(cosines)[::-1][:3], rtol=1e-6)
    assert len(small_run.similar_items(k=2)) == 20


def test_similar_attributes_are_the_nearest_by_cosine(
    small_corpus: sf.Corpus, small_config: sf.RunConfig, tmp_path: Path
) -> None:
    config = replace(small_config, stages=(PRETRAIN, FINETUNE))
    run = sf.train(config, small_corpus, out=tmp_path / "run")
    vectors = run.attribute_embeddings()
    frame = run.similar_attributes(["a1"])
    assert list(frame.columns) == ["attribute", "neighbor", "similarity", "rank"]
    assert set(frame["neighbor"]) == {"a0", "a2"}
    for row in frame.itertuples():
        one, other = vectors.loc["a1"], vectors.loc[row.neighbor]
        cosine = one @ other / np.linalg.norm(one) / np.linalg.norm(other)
        np.testing.assert_allclose(row.similarity, cosine, rtol=1e-5)
    assert len(run.similar_attributes(k=1)) == 3


def test_a_run_that_counts_has_no_embeddings(small_corpus: sf.Corpus, tmp_path: object) -> None:
    run = sf.train("popularity.popularity", small_corpus, out=f"{tmp_path}/run")
    with pytest.raises(sf.InputError, match="ranks by counts"):
        run.item_embeddings()
    with pytest.raises(sf.InputError, match="no embeddings of attributes"):
        run.attribute_embeddings()
