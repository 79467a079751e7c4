"""The command line: what each verb takes, prints and refuses, called as a person would."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest

from research.checkpoint import files as checkpoint
from research.cli.main import STOPPED, main
from research.cli.verbs import VERBS, ShowCommand, Ties
from research.data.corpus import Corpus
from research.evaluation.ties import TiePolicy
from research.evaluation.tiles import SeenPolicy
from research.packed import Packed
from research.runs.load import load_run
from tests import ROOT
from tests.evaluation.reference_ranks import scores_of_all
from tests.support.bert_configs import write_bert_config
from tests.support.command_line import (
    NUM_ITEMS,
    TINY,
    CommandResult,
    command_error,
    files_of,
    raw_id,
    run_command,
    shop_corpus,
    snapshot_of,
    table_rows,
    write_shop,
)
from tests.support.synthetic import write_histories

SASREC = "baselines.sasrec.full_softmax"
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return shop_corpus(tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def finished(shop: Corpus) -> Path:
    """The folder of a finished run."""
    folder = shop.folder.parent / "sasrec"
    code = main(["run", SASREC, f"corpus={shop.folder}", "--out", str(folder), "--quiet", *TINY])
    assert code == 0
    return folder


@pytest.fixture(autouse=True)
def _own_modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules of the current folder that a test imports are gone after it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("own_"):
            del sys.modules[name]


def run_tiny(
    capsys: Capture, corpus: Corpus, *arguments: object, target: str = SASREC
) -> CommandResult:
    return run_command(capsys, "run", target, f"corpus={corpus.folder}", *TINY, *arguments)


def stored(folder: Path) -> dict[str, object]:
    config = json.loads((folder / "config.json").read_text())["config"]
    assert isinstance(config, dict)
    return config


# Usage


def test_help_of_every_verb_imports_no_torch_and_names_its_options() -> None:
    script = """
import contextlib, io, sys
from research.cli.main import main
from research.cli.verbs import VERBS
for verb in VERBS:
    said = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(said):
        main([verb, "--help"])
    assert f"usage: sixfold {verb}" in said.getvalue(), said.getvalue()
main(["--help"])
heavy = {"torch", "numpy", "pandas", "accelerate", "wandb"} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert re.search(rf"^  {verb} \S", done.stdout, flags=re.MULTILINE)


@pytest.mark.parametrize("word", ["--help", "-h", "help"])
def test_help_lists_every_verb(capsys: Capture, word: str) -> None:
    answer = run_command(capsys, word)
    assert answer.code == 0
    assert answer.out.startswith("usage: sixfold VERB")
    assert all(f"\n  {verb} " in answer.out for verb in VERBS)


def test_no_argument_gives_the_usage_and_2(capsys: Capture) -> None:
    answer = run_command(capsys)
    assert answer.code == 2
    assert answer.out.startswith("usage: sixfold VERB")


def test_an_unknown_verb_gives_near_names_and_2(capsys: Capture) -> None:
    answer = run_command(capsys, "evalute", "x")
    message = "sixfold: no verb 'evalute'; did you mean evaluate or audit?\n"
    assert answer == CommandResult(2, "", message)
    far = run_command(capsys, "zzz").err
    assert all(verb in far for verb in VERBS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["run"], "Missing from sixfold run: EXPERIMENT"),
        (["study"], "Missing from sixfold study: STUDY"),
        (["study", "experiments.quickstart", "--sedes", "2"], "Perhaps you meant: --seeds N"),
        (["evaluate"], "Missing from sixfold evaluate: RUN"),
        (["evaluate", "r", "--part", "train"], "invalid choice 'train' for argument '--part'"),
        (["recommend"], "Missing from sixfold recommend: RUN"),
        (["recommend", "r", "--items", "1", "--k", "ten"], "Error parsing --k: invalid literal"),
        (["show"], "Missing from sixfold show: FOLDER"),
        (["show", "a", "b"], "Unrecognized options: b"),
        (["prepare"], "Missing from sixfold prepare: SOURCE"),
    ],
)
def test_wrong_usage_says_what_is_wrong_and_gives_2(
    capsys: Capture, given: list[str], message: str
) -> None:
    answer = run_command(capsys, *given)
    assert answer.code == 2
    said = " ".join(answer.err.replace("│", " ").split())
    assert message in said
    assert f"sixfold {given[0]} --help" in said


@pytest.mark.parametrize(
    ("given", "option"),
    [
        (["study", "experiments.quickstart", "--cells"], "--cells"),
        (["study", "experiments.quickstart", "--corpora", "--plan"], "--corpora"),
        (["evaluate", "r", "--metrics"], "--metrics"),
        (["evaluate", "r", "--candidates", "--part", "test"], "--candidates"),
    ],
)
def test_a_list_without_a_value_is_refused(capsys: Capture, given: list[str], option: str) -> None:
    answer = run_command(capsys, *given)
    assert answer.code == 2
    assert f"{option} has no value; give one or more, or leave {option} out" in answer.err


def test_options_may_be_written_with_underscores(capsys: Capture, shop: Corpus) -> None:
    given = ["study", "experiments.quickstart", "--plan", "--no_probe", "--data_root", "nowhere"]
    answer = run_command(capsys, *given, "--corpora", shop.folder)
    assert (answer.code, answer.err) == (0, "")


def test_sixfold_is_the_same_program() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    assert config["options.entry_points"]["console_scripts"].split("\n")[1:] == [
        "sixfold = research.cli.main:main"
    ]


def test_help_of_a_study_is_no_error(capsys: Capture) -> None:
    answer = run_command(capsys, "study", "experiments.quickstart", "--help")
    assert answer.code == 0
    assert "--seeds" in answer.out


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (FloatingPointError("the loss is nan"), 1, "sixfold show: the loss is nan\n"),
        (KeyboardInterrupt(), STOPPED, "\nstopped\n"),
    ],
)
def test_exit_codes_tell_failures_from_interruptions(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, said: str
) -> None:
    def fails(*arguments: object) -> int:
        raise error

    monkeypatch.setattr(ShowCommand, "execute", fails)
    answer = run_command(capsys, "show", "x")
    assert answer.code == code
    assert answer.err.startswith(said)


# prepare


def test_prepare_pairs_writes_a_corpus_and_prints_its_facts(
    capsys: Capture, tmp_path: Path
) -> None:
    (tmp_path / "p.txt").write_text("7 10\n7 11\n7 12\n8 10\n")
    out = tmp_path / "corpora" / "p"
    answer = run_command(capsys, "prepare", "pairs", "--raw", tmp_path / "p.txt", "--out", out)
    assert (answer.code, answer.err) == (0, "")
    corpus = Corpus.open(out)
    assert list(corpus.item_names) == ["10", "11", "12"]
    facts = {row[0]: row[1] for row in table_rows(answer.out)}
    assert facts["users"] == "2"
    assert facts["items"] == "3"
    assert facts["interactions"] == "4"
    assert facts["history length (mean / median / longest)"] == "2.0 / 2 / 3"
    assert facts["fingerprint"] == corpus.fingerprint[:16]
    assert facts["folder"] == str(out)
    assert facts["duplicates policy"] == "keep"


@pytest.mark.parametrize("dash", ["-", "_"])
def test_prepare_csv_takes_filters_in_either_spelling(
    capsys: Capture, tmp_path: Path, dash: str
) -> None:
    rows = ["a,x,5,3", "a,y,5,2", "a,y,4,1", "b,x,5,1", "b,y,1,2", "c,x,5,1", "c,z,5,2"]
    (tmp_path / "c.csv").write_text("user,item,rating,timestamp\n" + "\n".join(rows) + "\n")
    given = ["prepare", "csv", "--raw", tmp_path / "c.csv", "--out", tmp_path / "c"]
    given += [f"--min{dash}rating", "4", f"--user{dash}core=2", f"item{dash}core=1"]
    answer = run_command(capsys, *given, "--duplicates", "first")
    assert answer.code == 0
    corpus = Corpus.open(tmp_path / "c")
    # b keeps one interaction rated 4 or more and falls; of a's two y the older one stays.
    assert list(corpus.user_names) == ["a", "c"]
    names = [corpus.item_names[item] for item in corpus.items.tolist()]
    assert names == ["y", "x", "x", "z"]
    facts = {row[0]: row[1] for row in table_rows(answer.out)}
    assert facts["interactions read"] == "7"
    assert facts["removed by min rating"] == "1"
    assert facts["duplicates removed"] == "1"
    assert facts["removed by core interactions"] == "1"


def test_prepare_s3rec_finds_the_attributes_beside_the_text(
    capsys: Capture, tmp_path: Path
) -> None:
    (tmp_path / "B.txt").write_text("1 1 2 3\n2 2 3\n")
    attributes = {"1": [4, 5], "2": [5], "3": [], "9": [4]}
    (tmp_path / "B_item2attributes.json").write_text(json.dumps(attributes))
    answer = run_command(
        capsys, "prepare", "s3rec", "--raw", tmp_path / "B.txt", "--out", tmp_path / "B"
    )
    assert answer.code == 0
    facts = {row[0]: row[1] for row in table_rows(answer.out)}
    assert facts["attributes"] == "2"
    assert facts["attribute file unknown items"] == "1"
    assert facts["items without attributes"] == "1"


def test_prepare_without_out_writes_under_the_data_root(capsys: Capture, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("7 10\n7 11\n")
    root = tmp_path / "root"
    given = ["prepare", "pairs", "--raw", tmp_path / "p.txt", "--data-root", root]
    assert run_command(capsys, *given).code == 0
    assert [path.name[:2] for path in (root / "corpora").iterdir()] == ["p-"]


def test_prepare_lists_its_typed_options(capsys: Capture) -> None:
    answer = run_command(capsys, "prepare", "csv", "--help")
    assert answer.code == 0
    for part in (
        "--min_rating  float | None",
        "--duplicates  keep | exact | first | last",
        "--user_core  int",
    ):
        assert part in answer.out


def test_prepare_refuses_an_unknown_option_with_near_names(capsys: Capture, tmp_path: Path) -> None:
    message = command_error(capsys, "prepare", "csv", "--raww", "x", "--out", tmp_path / "c")
    assert message == "sixfold prepare: PrepareConfig has no 'raww'; did you mean raw?\n"
    assert not (tmp_path / "c").exists()


# run


@pytest.mark.parametrize("target", [SASREC, "baselines.sasrec:full_softmax"])
def test_a_run_takes_overrides_in_three_spellings(
    capsys: Capture, shop: Corpus, tmp_path: Path, target: str
) -> None:
    given = ["--stages.0.epochs", "1", "--seed=3", "encoder.width=4"]
    answer = run_command(
        capsys, "run", target, "--corpus", shop.folder, "--out", tmp_path / "r", *TINY, *given
    )
    assert (answer.code, answer.err) == (0, "")
    config = stored(tmp_path / "r")
    assert config["seed"] == 3
    encoder, stages = config["encoder"], config["stages"]
    assert isinstance(encoder, dict)
    assert isinstance(stages, list)
    assert encoder["width"] == 4
    assert stages[0]["epochs"] == 1


def test_a_run_prints_validations_and_then_its_figures(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    answer = run_tiny(capsys, shop, "--out", tmp_path / "r", "stages.0.validation.metric=mrr")
    for epoch in (1, 2):
        pattern = rf"^train: epoch {epoch}  val/mrr 0\.\d{{4}}"
        assert re.search(pattern, answer.out, flags=re.MULTILINE)
    assert re.search(r"^train: step \d+/6  loss \d\.\d{4}  [\d,]+ items/s$", answer.out, re.M)
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    shown = {row[0]: row[1:] for row in table_rows(answer.out)}
    parts = (summary["val"], summary["test"]["full"], summary["popularity"]["test"]["full"])
    assert shown["ndcg@10"] == [f"{part['ndcg@10']:.4f}" for part in parts]
    assert f"\nparameters: {summary['cost']['parameters']:,}\n" in answer.out
    assert "\nheld-out items that the history has, so never hit: " in answer.out


def test_a_run_lies_under_study_corpus_cell_and_seed(
    capsys: Capture, shop: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    popularity = "baselines.popularity.popularity"
    given = ["run", popularity, "--corpus", shop.folder]
    assert run_command(capsys, *given, "--seed", "2").code == 0
    assert (tmp_path / "runs" / "single" / "shop" / popularity / "2" / "summary.json").is_file()
    assert run_command(capsys, *given, "--runs", "mine", "--study", "s", "--cell", "c").code == 0
    assert (tmp_path / "mine" / "s" / "shop" / "c" / "0" / "summary.json").is_file()


def test_runs_with_other_settings_do_not_share_a_folder(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    target = "baselines.popularity.popularity"
    for given in ([], ["evaluation.seen=kept"], ["--evaluation.metrics", "hr@1"]):
        answer = run_command(
            capsys, "run", target, f"corpus={shop.folder}", "--runs", tmp_path, *given
        )
        assert answer.code == 0
    names = sorted(path.name for path in (tmp_path / "single" / "shop").iterdir())
    assert names[0] == target
    assert len(names) == 3
    assert all(re.fullmatch(rf"{re.escape(target)}-[0-9a-f]{{6}}", name) for name in names[1:])


def test_a_repeated_run_does_nothing_and_shows_the_same_figures(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    first = run_tiny(capsys, shop, "--out", tmp_path / "r", "--quiet")
    assert first.code == 0
    before = snapshot_of(tmp_path / "r")
    assert run_tiny(capsys, shop, "--out", tmp_path / "r") == first
    assert snapshot_of(tmp_path / "r") == before


def test_a_finished_run_goes_on_for_more_epochs_and_says_so(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    run_tiny(capsys, shop, "--out", tmp_path / "run")
    answer = run_tiny(capsys, shop, "--out", tmp_path / "run", "--more-epochs", 2)
    assert answer.code == 0
    assert "note: stage train had ended after 2 epochs" in answer.out
    assert "went on: stages.0.epochs was 2 and became 4" in answer.out
    assert len(list((tmp_path / "run" / "earlier").glob("*/summary.json"))) == 1
    answer = run_tiny(capsys, shop, "--out", tmp_path / "other", "--more-epochs", 2)
    assert answer.code == 2
    assert "other holds no run that could be extended" in answer.err


def test_a_quiet_run_prints_results_alone(capsys: Capture, shop: Corpus, tmp_path: Path) -> None:
    answer = run_tiny(capsys, shop, "--out", tmp_path / "r", "--quiet")
    assert "epoch 1 " not in answer.out
    assert run_command(capsys, "show", tmp_path / "r").out == answer.out


def test_a_stopped_run_says_so_is_shown_as_unfinished_and_continues(
    capsys: Capture, shop: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = checkpoint.save
    saved: list[Path] = []

    def save_once(folder: Path, *rest: object, **named: object) -> None:
        save(folder, *rest, **named)  # type: ignore[arg-type]
        saved.append(folder)
        if folder.name.startswith("step_"):
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", save_once)
        answer = run_tiny(capsys, shop, "--out", tmp_path / "r")
    assert answer.code == STOPPED == 75
    assert "the same command continues" in answer.err
    shown = run_command(capsys, "show", tmp_path / "r")
    assert shown.code == 0
    expected = (
        f"{tmp_path / 'r'}: not finished (train, step 3); run the command that started it, or"
    )
    assert shown.out.startswith(expected)
    again = run_tiny(capsys, shop, "--out", tmp_path / "r")
    assert again.code == 0
    assert "train: epoch 1 " not in again.out
    assert "train: epoch 2 " in again.out
    whole = run_tiny(capsys, shop, "--out", tmp_path / "whole")
    assert table_rows(again.out) == table_rows(whole.out)


def test_more_processes_than_there_are_is_refused_before_any_work(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    for given in (
        ["run", SASREC, f"corpus={shop.folder}", "--out", tmp_path / "r"],
        ["run", SASREC, "corpus=ml-100k", "--runs", tmp_path / "r"],
        ["study", "experiments.quickstart", "--runs", tmp_path / "r"],
    ):
        for world in (2, 0):
            more = ["--data-root", tmp_path / "data", "--expect-world", world]
            message = command_error(capsys, *given, *more)
            assert f"{world} processes are expected, but this one sees 1; launch them" in message
    assert list(tmp_path.iterdir()) == []
    given = ["run", "baselines.popularity.popularity", f"corpus={shop.folder}"]
    assert run_command(capsys, *given, "--out", tmp_path / "r", "--expect-world", "1").code == 0


def test_a_number_of_threads_below_one_is_refused(capsys: Capture, tmp_path: Path) -> None:
    message = command_error(capsys, "run", SASREC, "--threads", "0", "--runs", tmp_path)
    assert "--threads is 0; it must be at least 1" in message


def test_an_unknown_field_is_refused_with_a_near_name(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    for given in (["--encoder.widht", "8"], ["--encoder.widht=8"], ["encoder.widht=8"]):
        message = command_error(capsys, "run", SASREC, *given, "--out", tmp_path / "r")
        assert "encoder (TransformerConfig) has no 'widht'; did you mean width?" in message
    assert not (tmp_path / "r").exists()


def test_a_value_of_the_wrong_type_is_refused(capsys: Capture, tmp_path: Path) -> None:
    message = command_error(capsys, "run", SASREC, "--runs", tmp_path, "encoder.width=wide")
    assert message == "sixfold run: encoder.width is 'wide'; allowed: int\n"


def test_a_run_is_given_classes_by_name_and_what_the_readme_says(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    given = [
        "--split", "GlobalTemporal", "--split.test_share", "0.2", "--split.validation_share", "0.2",
        "stages.0.objectives.next.loss=SampledSoftmax", "stages.0.objectives.next.loss.number=8.0",
        "compute.recompute=true", "evaluation.metrics=[hr@10,mrr]", "stages.0.validation=null",
    ]  # fmt: skip
    assert run_tiny(capsys, shop, "--out", tmp_path / "r", *given).code == 0
    config = stored(tmp_path / "r")
    assert config["split"] == {
        "class": "GlobalTemporal", "validation_share": 0.2, "test_share": 0.2,
    }  # fmt: skip
    stage = config["stages"][0]
    assert (stage["validation"], config["compute"]["recompute"]) == (None, True)
    loss = stage["objectives"]["next"]["loss"]
    assert (loss["class"], loss["number"]) == ("SampledSoftmax", 8)
    message = command_error(capsys, "run", SASREC, "--out", tmp_path / "no", "split=GlobalTmporal")
    assert message == (
        "sixfold run: split is 'GlobalTmporal'; did you mean GlobalTemporal or "
        "TemporalCut? (allowed: ColdItems, GlobalTemporal, LeaveOneOut, TemporalCut, "
        "TimepointLeaveOneOut, UserHoldout)\n"
    )
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("baselines.sasrec.ful_softmax", "has no 'ful_softmax'; did you mean full_softmax?"),
        ("baselines.sasrec:ful_softmax", "has no 'ful_softmax'; did you mean full_softmax?"),
        (
            "baselines.sasrec",
            "baselines.sasrec is a module; allowed: baselines.sasrec.bce, "
            "baselines.sasrec.full_softmax, baselines.sasrec.gsasrec, ",
        ),
        ("baselines.sasrecc.bce", "there is no module 'baselines.sasrecc'; did you mean `sixfold"),
        ("baselines.sasrecc:bce", "there is no module 'baselines.sasrecc'; did you mean `sixfold"),
        ("nowhere.x", "nowhere.x: there is no module 'nowhere'; write package.module.function"),
        ("nowhere", "nowhere: there is no module 'nowhere'; write package.module.function"),
        ("./mine.py:cell", "there is no module './mine.py'; write package.module.function"),
        ("../zzz:mine", "there is no module '../zzz'; write package.module.function"),
        ("baselines..bce", "there is no module 'baselines.'; did you mean `sixfold run` with "),
        ("", "there is no module ''; write package.module.function"),
        ("experiments.quickstart:study", "is or returns a Study, not a RunConfig"),
        ("baselines.sasrec:NextItemConfig", "is or returns a NextItemConfig, not a RunConfig"),
        ("baselines.sasrec.s3rec_block", "baselines.sasrec.s3rec_block needs arguments (loss)"),
        ("research.packed", "research.packed is a module; nothing in it is or returns a RunConfig"),
    ],
)
def test_an_experiment_that_is_not_there_is_refused_and_says_what_is(
    capsys: Capture, tmp_path: Path, target: str, message: str
) -> None:
    assert message in command_error(capsys, "run", target, "--runs", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_fails_to_import_shows_its_own_error(
    capsys: Capture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_broken.py").write_text("import own_missing_dependency\n")
    for target in ("own_broken.cell", "own_broken:cell", "own_broken"):
        with pytest.raises(ModuleNotFoundError, match="own_missing_dependency"):
            run_command(capsys, "run", target)
    (tmp_path / "own_wrong.py").write_text("def cell(:\n")
    with pytest.raises(SyntaxError):
        run_command(capsys, "run", "own_wrong.cell")


def test_a_run_of_ones_own_in_the_current_folder(
    capsys: Capture, shop: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_run.py").write_text(
        "from baselines.popularity import recent\n\ndef cell():\n    return recent()\n"
    )
    answer = run_command(capsys, "run", "own_run:cell", f"corpus={shop.folder}")
    assert answer.code == 0
    assert (tmp_path / "runs" / "single" / "shop" / "own_run.cell" / "0").is_dir()


def test_an_encoder_comes_from_a_published_file_and_overrides_after_it(
    capsys: Capture, shop: Corpus, tmp_path: Path
) -> None:
    path = write_bert_config(tmp_path)
    given = ["run", "baselines.bert4rec.cloze", f"corpus={shop.folder}", "--encoder-from", path]
    less = ["encoder.length=9", "encoder.layers=1", "stages.0.epochs=1", "--runs", tmp_path]
    assert run_command(capsys, *given, *less).code == 0
    (config,) = (tmp_path / "single" / "shop").glob("baselines.bert4rec.cloze-*/0/config.json")
    encoder: Any = stored(config.parent)["encoder"]
    assert (encoder["heads"], encoder["feed_forward"], encoder["segments"]) == (4, 128, 2)
    assert (encoder["length"], encoder["layers"]) == (9, 1)
    path.write_text("{}")
    assert f"{path} has no field 'hidden_size'" in command_error(capsys, *given, "--runs", tmp_path)


def test_help_of_an_experiment_lists_typed_fields_with_their_defaults(capsys: Capture) -> None:
    answer = run_command(capsys, "run", SASREC, "--help")
    assert answer.code == 0
    said = " ".join(answer.out.split())
    for part in (
        "--encoder.width int Width D of the hidden states",
        "--encoder.activation gelu | gelu_tanh | relu",
        "--stages.0.objectives.next.weight float",
        "--stages.0.validation.metric str The metric to maximise",
        "(default: ndcg@20)",
        "--seed int",
    ):
        assert part in said


@pytest.mark.parametrize("name", ["..", "a/b"])
def test_a_name_that_leads_out_of_the_runs_folder_is_refused(
    capsys: Capture, shop: Corpus, tmp_path: Path, name: str
) -> None:
    given = ["run", "baselines.popularity.popularity", f"corpus={shop.folder}"]
    for option in ("--cell", "--study"):
        message = command_error(capsys, *given, "--runs", tmp_path / "runs", option, name)
        assert f"is named {name!r}, which cannot be the name of a folder" in message
    assert list(tmp_path.iterdir()) == []


# Progress


def test_piped_output_is_plain_lines(
    capsys: Capture, shop: Corpus, finished: Path, tmp_path: Path
) -> None:
    answers = [
        run_tiny(capsys, shop, "--out", tmp_path / "r"),
        run_command(capsys, "show", finished),
        run_command(capsys, "show", shop.folder),
        run_command(capsys, "evaluate", finished),
        run_command(capsys, "recommend", finished, "--items", raw_id(0)),
    ]
    for answer in answers:
        assert answer.code == 0
        assert not [letter for letter in answer.out + answer.err if letter < " " and letter != "\n"]
        assert not [line for line in answer.out.splitlines() if "…" in line]


def test_a_terminal_shows_a_bar_with_loss_and_speed(
    capsys: Capture, shop: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    answer = run_tiny(capsys, shop, "--out", tmp_path / "r", "stages.0.log_every=1")
    assert "\x1b[" in answer.out
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", answer.out)
    assert re.search(r"train .* 6/6 loss \d\.\d{4} +[\d,]+ items/s +0:00:00", plain)
    assert "train: epoch 1  val/ndcg@20" in plain
    assert "train: step" not in plain


def test_a_narrow_terminal_loses_no_figure(
    capsys: Capture, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    for answer in (
        run_command(capsys, "show", finished),
        run_command(capsys, "evaluate", finished),
    ):
        for value in summary["test"]["full"].values():
            assert f" {value:.4f} " in answer.out
        assert "…" not in answer.out


# evaluate


def test_evaluating_a_run_again_gives_the_figures_of_its_summary(
    capsys: Capture, finished: Path
) -> None:
    answer = run_command(capsys, "evaluate", finished)
    assert (answer.code, answer.err) == (0, "")
    summary = json.loads((finished / "summary.json").read_text())
    expected = [[name, f"{value:.4f}"] for name, value in summary["test"]["full"].items()]
    assert table_rows(answer.out) == expected
    answer = run_command(capsys, "evaluate", finished, "--part", "validation")
    expected = [[name, f"{value:.4f}"] for name, value in summary["val"].items()]
    assert table_rows(answer.out) == expected
    assert "validation of shop" in answer.out


def test_a_run_is_evaluated_under_other_candidates_and_metrics(
    capsys: Capture, finished: Path
) -> None:
    before = files_of(finished)
    given = ["--candidates", "full", "uniform-20", "popularity-20", "--metrics", "hr@1", "map@5"]
    answer = run_command(capsys, "evaluate", finished, *given)
    assert answer.code == 0
    head = next(line for line in answer.out.splitlines() if "metric" in line)
    assert [name.strip() for name in head.strip("┃").split("┃")] == [
        "metric", "full", "uniform-20", "popularity-20"
    ]  # fmt: skip
    rows = {row[0]: [float(cell) for cell in row[1:]] for row in table_rows(answer.out)}
    assert list(rows) == ["hr@1", "map@5"]
    # Fewer rivals cannot make a rank worse, and a first place is within the first five.
    for full, uniform, popular in rows.values():
        assert full <= min(uniform, popular)
    assert all(one <= five for one, five in zip(rows["hr@1"], rows["map@5"]))
    assert files_of(finished) == before


def test_sampled_candidates_are_the_same_in_every_call(capsys: Capture, finished: Path) -> None:
    given = ["evaluate", finished, "--candidates", "uniform-20", "popularity-20"]
    assert run_command(capsys, *given) == run_command(capsys, *given)


def test_kept_seen_items_compete(capsys: Capture, tmp_path: Path) -> None:
    # In training item 0 is the most popular, then 1; the answers are 0, 1 and 2.
    histories = [[0, 0, 1, 0], [0, 1, 0, 1], [0, 1, 3, 2]]
    write_histories(tmp_path / "c", histories, num_items=4)
    popularity = "baselines.popularity.popularity"
    run_command(capsys, "run", popularity, f"corpus={tmp_path / 'c'}", "--out", tmp_path / "r")
    given = ["evaluate", tmp_path / "r", "--metrics", "hr@1", "hr@4"]
    hidden, kept = run_command(capsys, *given), run_command(capsys, *given, "--seen", "kept")
    assert "seen items excluded" in hidden.out
    assert "seen items kept" in kept.out
    # Two answers stand in their histories: misses, unless seen items compete.
    assert table_rows(hidden.out) == [["hr@1", "0.3333"], ["hr@4", "0.3333"]]
    assert table_rows(kept.out) == [["hr@1", "0.3333"], ["hr@4", "1.0000"]]


def test_ties_are_expected_or_at_their_mean_rank(capsys: Capture, tmp_path: Path) -> None:
    # In training all four items stand once: among the two that each user has not seen, both tie.
    write_histories(tmp_path / "c", [[0, 1, 2], [2, 3, 0], [1, 2, 3], [3, 0, 1]], num_items=4)
    popularity = "baselines.popularity.popularity"
    answer = run_command(
        capsys, "run", popularity, f"corpus={tmp_path / 'c'}", "--out", tmp_path / "r"
    )
    assert "ties: expected" in answer.out
    given = ["evaluate", tmp_path / "r", "--metrics", "hr@1", "hr@2"]
    expected, mean = run_command(capsys, *given), run_command(capsys, *given, "--ties", "mean")
    assert "seen items excluded, ties expected" in expected.out
    assert "seen items excluded, ties mean" in mean.out
    assert table_rows(expected.out) == [["hr@1", "0.5000"], ["hr@2", "1.0000"]]
    assert table_rows(mean.out) == [["hr@1", "0.0000"], ["hr@2", "1.0000"]]


def test_negatives_of_a_file_stand_beside_the_candidates(
    capsys: Capture, shop: Corpus, finished: Path, tmp_path: Path
) -> None:
    bounds = pairwise(shop.offsets)
    for user, (start, stop) in zip(shop.user_names, bounds):
        history = shop.items[start:stop].tolist()
        others = [item for item in range(shop.num_items) if item not in history][:3]
        with (tmp_path / "n.txt").open("a") as free, (tmp_path / "seen.txt").open("a") as seen:
            free.write(f"{user} {' '.join(shop.item_names[item] for item in others)}\n")
            others[0] = history[0]
            seen.write(f"{user} {' '.join(shop.item_names[item] for item in others)}\n")
    given = ["--negatives-file", tmp_path / "n.txt", "--metrics", "hr@4", "hr@1"]
    answer = run_command(capsys, "evaluate", finished, *given)
    assert answer.code == 0
    assert "file-3" in answer.out
    rows = {row[0]: row[1:] for row in table_rows(answer.out)}
    full, listed = (float(cell) for cell in rows["hr@1"])
    assert listed >= full
    given[1] = tmp_path / "seen.txt"
    assert "seen.txt, line 1: item " in command_error(capsys, "evaluate", finished, *given)
    answer = run_command(capsys, "evaluate", finished, *given, "--seen", "kept")
    assert "file-3-seen: " in answer.out
    assert "(33.3%) negatives are in their users' histories" in answer.out
    message = command_error(capsys, "evaluate", finished, "--negatives-file", tmp_path / "none.txt")
    assert f"negatives file {tmp_path / 'none.txt'} does not exist" in message


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--metrics", "hr10"], "metric 'hr10' does not exist; allowed: hr@K"),
        (["--candidates", "random-5"], "has 'random-5'; allowed: full, uniform-N, popularity-N"),
        (["--candidates", "uniform-0"], "has 'uniform-0'; allowed: full, uniform-N, popularity-N"),
        (["--candidates", "uniform-35"], "uniform-35 asks for 35 distinct negatives, but for user"),
        (
            ["--candidates", "uniform-90"],
            "uniform-90 asks for 90 distinct negatives, but corpus shop has 40 items; ask",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused(
    capsys: Capture, finished: Path, given: list[str], message: str
) -> None:
    assert message in command_error(capsys, "evaluate", finished, *given)


# recommend


def test_recommendations_are_the_best_scores_by_raw_id_and_title(
    capsys: Capture, shop: Corpus, finished: Path
) -> None:
    names = [raw_id(item) for item in (3, 7, 20)]
    history = [shop.item_names.index(name) for name in names]
    _, ranker = load_run(finished, "data")
    scores = scores_of_all(ranker, Packed.from_lists([history]))[0].tolist()
    free = [item for item in range(NUM_ITEMS) if item not in history]
    best = sorted(free, key=lambda item: -scores[item])[:5]
    answer = run_command(capsys, "recommend", finished, "--items", ",".join(names), "--k", "5")
    assert (answer.code, answer.err) == (0, "")
    # An item's title was written beside its raw id, whatever its dense id became.
    raw = [shop.item_names[item] for item in best]
    assert table_rows(answer.out) == [
        [str(rank), name, f"Film {int(name[1:]) - 100}", f"{scores[item]:.3f}"]
        for rank, (name, item) in enumerate(zip(raw, best), 1)
    ]
    assert answer.out.startswith("after Film 3, Film 7, Film 20\n")


def test_the_order_of_the_history_matters(capsys: Capture, finished: Path) -> None:
    one = run_command(capsys, "recommend", finished, "--items", f"{raw_id(3)},{raw_id(7)}")
    other = run_command(capsys, "recommend", finished, "--items", f"{raw_id(7)},{raw_id(3)}")
    assert table_rows(one.out) != table_rows(other.out)


def test_popularity_recommends_what_is_most_popular_and_new(
    capsys: Capture, tmp_path: Path
) -> None:
    # Training counts: item 2 three times, item 0 twice, item 1 once, item 3 never.
    histories = [[2, 0, 3, 3], [2, 0, 3, 3], [2, 1, 3, 3]]
    write_histories(tmp_path / "c", histories, num_items=4)
    popularity = "baselines.popularity.popularity"
    run_command(capsys, "run", popularity, f"corpus={tmp_path / 'c'}", "--out", tmp_path / "r")
    new = run_command(capsys, "recommend", tmp_path / "r", "--items", "i0", "--k", "10")
    assert table_rows(new.out) == [
        ["1", "i2", "", "3.000"], ["2", "i1", "", "1.000"], ["3", "i3", "", "0.000"]
    ]  # fmt: skip
    every = run_command(
        capsys, "recommend", tmp_path / "r", "--items", "i0", "--k", "2", "--keep-seen"
    )
    assert table_rows(every.out) == [["1", "i2", "", "3.000"], ["2", "i0", "", "2.000"]]


def test_a_history_longer_than_the_encoder_is_cut_to_its_newest_items(
    capsys: Capture, finished: Path
) -> None:
    newest = [raw_id(item) for item in range(6)]
    older = [raw_id(item) for item in range(6, 20)]
    given = ["recommend", finished, "--k", NUM_ITEMS, "--keep-seen", "--items"]
    short = run_command(capsys, *given, ",".join(newest))
    long = run_command(capsys, *given, ",".join(older + newest))
    assert short.code == long.code == 0
    assert table_rows(short.out) == table_rows(long.out)


def test_ten_items_are_recommended_unless_said(capsys: Capture, finished: Path) -> None:
    answer = run_command(capsys, "recommend", finished, "--items", f" {raw_id(0)} , {raw_id(1)} ,")
    assert [row[0] for row in table_rows(answer.out)] == [str(rank) for rank in range(1, 11)]


def test_ids_may_have_commas_between_and_after_them(capsys: Capture, finished: Path) -> None:
    words = [f"{raw_id(0)},", f"{raw_id(1)},{raw_id(2)}", raw_id(3)]
    for verb in ("recommend", "similar"):
        plain = run_command(capsys, verb, finished, "--items", *map(raw_id, range(4)))
        assert plain.code == 0
        assert run_command(capsys, verb, finished, "--items", *words).out == plain.out


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("B100,B1099", "'B1099' is not among the 40 names. Similar names: 'B109'"),
        ("b100", "'b100' is not among the 40 names. Similar names: 'B100'"),
        ("Film 3", "'Film 3' is not among the 40 names. Existing names, for example: 'B"),
        ("", "--items is empty; give one raw id or more"),
        (" , ", "--items is empty; give one raw id or more"),
    ],
)
def test_items_that_are_not_there_are_refused(
    capsys: Capture, finished: Path, items: str, message: str
) -> None:
    assert message in command_error(capsys, "recommend", finished, "--items", items)


@pytest.mark.parametrize("k", [0, -3])
def test_fewer_than_one_item_is_refused(capsys: Capture, finished: Path, k: int) -> None:
    message = command_error(capsys, "recommend", finished, "--items", raw_id(0), f"--k={k}")
    assert f"--k is {k}; it must be at least 1" in message


def test_titles_are_shown_as_they_stand(capsys: Capture, tmp_path: Path) -> None:
    raw = write_shop(tmp_path / "raw")
    titles = "item_id:token\ttitle:token_seq\nB100\t[/b] [red]x :cat:\n"
    (tmp_path / "raw" / "shop.item").write_text(titles)
    assert run_command(capsys, "prepare", "atomic", "--raw", raw, "--out", tmp_path / "c").code == 0
    popularity = "baselines.popularity.popularity"
    run = tmp_path / "[bold]r"
    run_command(capsys, "run", popularity, f"corpus={tmp_path / 'c'}", "--out", run)
    answer = run_command(
        capsys, "recommend", run, "--items", "B100", "--keep-seen", "--k", NUM_ITEMS
    )
    assert answer.out.startswith("after [/b] [red]x :cat:\n")
    assert ["B100", "[/b] [red]x :cat:"] in [row[1:3] for row in table_rows(answer.out)]
    assert run_command(capsys, "show", run).out.startswith(f"{run}\n")


# show


def test_show_tells_a_runs_figures_and_costs(capsys: Capture, finished: Path) -> None:
    answer = run_command(capsys, "show", finished)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"{finished}\n")
    summary = json.loads((finished / "summary.json").read_text())
    assert "validation, full" in answer.out
    assert "test, full" in answer.out
    assert "popularity, full" in answer.out
    parts = (summary["val"], summary["test"]["full"], summary["popularity"]["test"]["full"])
    expected = [[name, *(f"{part[name]:.4f}" for part in parts)] for name in parts[1]]
    assert table_rows(answer.out) == expected
    for line in (
        "stage train: best validation ", "trained: in ",
        f"users: {summary['users']['evaluated']} evaluated, ",
        f"fingerprint: {summary['fingerprint'][:16]}",
    ):  # fmt: skip
        assert f"\n{line}" in answer.out


def test_show_tells_a_run_without_validation(
    capsys: Capture, shop: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_holdout.py").write_text(
        "from research.data.splits import UserHoldout\nfrom research.runs.config import RunConfig\n"
        "from baselines.popularity import PopularityConfig\n\n\ndef cell():\n"
        "    split = UserHoldout(validation_share=0.0, test_share=0.2)\n"
        "    return RunConfig(split=split, ranker=PopularityConfig())\n"
    )
    answer = run_command(capsys, "run", "own_holdout.cell", f"corpus={shop.folder}", "--out", "r")
    assert (answer.code, answer.err) == (0, "")
    assert "test, full" in answer.out
    assert "validation" not in answer.out


def test_show_tells_a_corpus(capsys: Capture, shop: Corpus) -> None:
    answer = run_command(capsys, "show", shop.folder)
    facts = {row[0]: row[1] for row in table_rows(answer.out)}
    assert facts["users"] == "84"
    assert facts["items"] == "40"
    assert facts["timestamps"] == "yes"
    assert facts["fingerprint"] == shop.fingerprint[:16]
    assert facts["tied interactions"] == "0.0000"
    assert facts["files"].startswith("name shop.inter, bytes ")


def test_show_of_a_folder_that_is_neither_is_refused(capsys: Capture, tmp_path: Path) -> None:
    for folder, reason in (
        (tmp_path, "neither a run nor a corpus lies at or below it"),
        (tmp_path / "none", "it does not exist"),
    ):
        message = command_error(capsys, "show", folder)
        expected = "is neither a run folder (config.json) nor a corpus folder (manifest.json)"
        assert message.startswith(f"sixfold show: {folder} {expected}, nor a corpus in data/")
        assert message.endswith(f": {reason}\n")


def test_show_of_a_run_that_has_not_begun(capsys: Capture, finished: Path, tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    shutil.copy(finished / "config.json", tmp_path / "r")
    answer = run_command(capsys, "show", tmp_path / "r")
    assert answer.code == 0
    assert f"{tmp_path / 'r'}: not finished (not begun); run the command" in answer.out


def test_showing_a_corpus_needs_no_torch(shop: Corpus) -> None:
    script = "import sys; from research.cli.main import main; main(sys.argv[1:]); "
    script += "sys.exit('torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script, "show", str(shop.folder)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_policies_are_the_same_words_on_the_command_line() -> None:
    assert get_args(TiePolicy) == get_args(Ties)
    assert get_args(SeenPolicy) == ("excluded", "kept", "zero")
