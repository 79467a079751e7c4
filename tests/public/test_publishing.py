"""`sf.export` and `sf.import_hub`: a run leaves as a file or a folder, and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file

import sixfold as sf
from tests.support.hub_stand_in import stand_in_for_the_hub


@pytest.mark.parametrize("place", ["folder", "hub"])
def test_a_run_comes_back_from_a_hub_folder(
    small_run: sf.Run,
    small_corpus: sf.Corpus,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: str,
) -> None:
    hub = stand_in_for_the_hub(monkeypatch, tmp_path)
    (tmp_path / "me").mkdir()
    lines = sf.export(small_run, tmp_path / "me" / "model", license="mit")
    assert any(line.startswith("model.safetensors: ") for line in lines)
    source = tmp_path / "me" / "model" if place == "folder" else "hf://me/model@v1"
    again = sf.import_hub(source, small_corpus, out=tmp_path / "again")
    assert hub.calls == ([] if place == "folder" else [("me/model", "v1")])
    assert again.metrics().equals(small_run.metrics())
    histories = [[small_corpus.item_names[0]], []]
    answers = [run.recommend(histories=histories, k=3) for run in (small_run, again)]
    assert answers[0].equals(answers[1])
    with pytest.raises(sf.InputError, match="again"):
        sf.import_hub(source, small_corpus, out=tmp_path / "again")


def test_weights_are_written_as_they_are(small_run: sf.Run, tmp_path: Path) -> None:
    sf.export(small_run, str(tmp_path / "m.safetensors"), format="safetensors")
    assert "encoder.blocks.0.attention_norm.bias" in load_file(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflite"}, "format is 'tflite'; allowed: onnx, torch-export, safetensors, hub"),
        ({"k": 3}, "k and keep_seen are for onnx and torch-export alone; leave them out"),
        ({"format": "onnx", "keep_seen": True}, "keep_seen needs k; add that, or leave it out"),
        ({"format": "onnx", "license": "mit"}, "license is for hub alone; leave it out"),
        ({"format": "onnx", "k": 1.5}, "k is 1.5; allowed: int | None"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    small_run: sf.Run, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(sf.InputError) as caught:
        sf.export(small_run, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert str(caught.value) == message
    assert not (tmp_path / "out").exists()
