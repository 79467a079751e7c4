"""What docs/publish.md says can be typed, can be typed; the Hub is a stand-in."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch

from research.data.corpus import Corpus
from research.runs.execute import execute
from tests import ROOT
from tests.support.command_line import run_command
from tests.support.hub_stand_in import stand_in_for_the_hub
from tests.support.row_format_files import gsasrec_state, recbole_state
from tests.support.s3rec_files import ITEMS, numbered_corpus
from tests.support.small_runs import FINETUNE, QUIET, config_of

PAGE = (ROOT / "docs" / "publish.md").read_text(encoding="utf-8")
Capture = pytest.CaptureFixture[str]
HAS_ONNX = importlib.util.find_spec("onnxruntime") is not None


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines]


def test_the_page_shows_every_format() -> None:
    shown = {words[words.index("--format") + 1] for words in commands()}
    assert shown == {
        "onnx", "torch-export", "safetensors", "hub", "recbole-sasrec", "recbole-bert4rec",
        "gsasrec",
    }  # fmt: skip


@pytest.mark.long
def test_the_commands_run_in_the_order_in_which_they_stand(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    stand_in_for_the_hub(monkeypatch, tmp_path / "remote")
    corpus: Corpus = numbered_corpus(tmp_path / "data" / "corpora" / "shop")
    execute(config_of(corpus, FINETUNE), tmp_path / "runs" / "mine", options=QUIET)
    torch.save(recbole_state(bert=False), "sasrec.pt")
    torch.save(recbole_state(bert=True), "bert4rec.pt")
    torch.save(gsasrec_state(), "gsasrec.pt")
    Path("ids.txt").write_text("\n".join(["[PAD]", *map(str, ITEMS)]) + "\n")
    for words in commands():
        if "onnx" in words and not HAS_ONNX:
            continue
        answer = run_command(capsys, *words)
        assert (answer.code, answer.err) == (0, ""), " ".join(words)
    if HAS_ONNX:
        exec(compile(blocks("python")[0], "docs/publish.md", "exec"), {})
        assert capsys.readouterr().out.startswith("5 [[")
    exec(compile(blocks("python")[1], "docs/publish.md", "exec"), {})
    assert (tmp_path / "runs" / "third" / "summary.json").is_file()


def test_what_the_page_takes_from_recbole_can_be_imported(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    # RecBole numbers items in an order of its own; its checkpoint holds its config.
    names = np.array(["[PAD]", *map(str, ITEMS[::-1])])
    dataset = SimpleNamespace(iid_field="item_id", field2id_token={"item_id": names})
    data = ModuleType("recbole.data")
    data.__dict__["create_dataset"] = {"the config": dataset}.__getitem__
    monkeypatch.setitem(sys.modules, "recbole", ModuleType("recbole"))
    monkeypatch.setitem(sys.modules, "recbole.data", data)
    Path("saved").mkdir()
    state = recbole_state(bert=False)
    torch.save({"config": "the config", "state_dict": state}, "saved/SASRec.pth")
    every_block = re.findall(r"^```(.*)$", PAGE, flags=re.MULTILINE)[::2]
    assert every_block.count("python") == 3
    assert set(every_block) == {"sh", "python"}
    exec(compile(blocks("python")[2], "docs/publish.md", "exec"), {})
    numbered_corpus(tmp_path / "data" / "corpora" / "shop")
    (words,) = (words for words in commands() if "recbole-sasrec" in words)
    answer = run_command(capsys, *words)
    assert (answer.code, answer.err) == (0, "")
    assert torch.load("sasrec.pt").keys() == state.keys()
    assert Path("ids.txt").read_text().split("\n") == [*names.tolist(), ""]
