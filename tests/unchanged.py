"""What must not change while files move and names and prose change, gathered and compared.

Command: python -m tests.unchanged write FOLDER     before the first move
         python -m tests.unchanged check FOLDER     after each one

FOLDER keeps what was gathered, and a study and its corpus as the code of that time left them, which
`check` lets today's code read; it lies outside the tree.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import hashlib
import importlib
import inspect
import io
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tokenize
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import get_type_hints

import torch

import baselines.bert4rec
import baselines.s3rec
import baselines.sasrec
import research.cli.main
from experiments.shop import histories
from research.config import hash_of
from research.runs.execute import RunOptions, execute

ROOT = Path(__file__).parent.parent
RECIPES = {
    "sasrec": baselines.sasrec.full_softmax,
    "bce": baselines.sasrec.bce,
    "gsasrec": baselines.sasrec.gsasrec,
    "cloze": baselines.bert4rec.cloze,
    "s3rec": baselines.s3rec.published,
    "joint": baselines.s3rec.joint,
}
STEPS = 20
# Words by which a sentence names its source or what was measured.
CITATIONS = {
    "equation": r"\beq\.|\bequation",
    "section": r"\bsection \d",
    "arXiv": r"arXiv",
    "authors and year": r"\b[A-Z][a-z]+ (?:et al\.|and [A-Z][a-z]+),? (?:19|20)\d\d",
    "number": r"(?<![\w.])\d[\d,.]*\d",
}
STUDY = '''
"""Two cells, for `tests.unchanged`."""

from dataclasses import replace

from baselines.popularity import popularity
from baselines.sasrec import full_softmax
from research.studies.study import Study


def study() -> Study:
    small = full_softmax()
    stage = replace(small.stages[0], epochs=2)
    encoder = replace(small.encoder, width=16, feed_forward=32, length=10)
    return Study(
        name="kept",
        question="Is it read as it was?",
        cells={
            "popularity": popularity(),
            "sasrec": replace(small, encoder=encoder, stages=(stage,)),
        },
        base="popularity",
        seeds=(0, 1),
        corpora=("corpus",),
    )
'''


def called(*arguments: str) -> str:
    """What `sixfold ARGUMENTS` prints, without what differs between any two calls."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        code = research.cli.main.main(list(arguments))
    lines = [
        line
        for line in out.getvalue().splitlines()
        if not re.search("seconds|begun|commit|command|machine|versions|items/s", line)
    ]
    return "\n".join([f"exit code {code}", *lines])


def make_corpus(folder: Path) -> None:
    """300 users of 500 items in S3-Rec's two files, prepared as `folder`/corpus."""
    rows = histories(300, 500, 0)
    text = "\n".join(
        " ".join(map(str, (user, *(item + 1 for item in row)))) for user, row in enumerate(rows, 1)
    )
    (folder / "kept.txt").write_text(text + "\n")
    attributes = {str(item + 1): [1 + item % 7, 8 + item // 50] for item in range(500)}
    (folder / "kept_item2attributes.json").write_text(json.dumps(attributes))
    raw, out = str(folder / "kept.txt"), str(folder / "corpus")
    print(called("prepare", "s3rec", "--raw", raw, "--out", out), file=sys.stderr)


def losses(corpus: Path) -> Iterator[str]:
    """Lines, weights and figures of 20 steps of six recipes."""
    for name, recipe in RECIPES.items():
        config = recipe()
        stages = tuple(
            replace(
                stage,
                epochs=None,
                steps=STEPS,
                log_every=1,
                gradients_every=7 if name == "joint" else None,
                batches=replace(
                    stage.batches,
                    sequences_per_batch=64,
                    tokens_per_batch=None,
                    micro_batches=2 if name in ("cloze", "joint") else 1,
                ),
            )
            for stage in config.stages
        )
        config = replace(config, corpus=str(corpus), stages=stages)
        with tempfile.TemporaryDirectory() as scratch:
            options = RunOptions(quiet=True)
            summary = execute(config, Path(scratch) / "run", options=options)
            for text in (Path(scratch) / "run" / "metrics.jsonl").read_text().splitlines():
                line = json.loads(text)
                yield f"{name} {json.dumps({k: v for k, v in line.items() if 'second' not in k})}"
            for path in sorted((Path(scratch) / "run").glob("stages/*/step_*/model.safetensors")):
                yield f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        yield f"{name} {summary.hash} {json.dumps(dict(summary.test['full']))}"


def config_hashes() -> Iterator[str]:
    """The hash of every recipe of `baselines` and of every cell of every study."""
    for top in ("baselines", "experiments"):
        for path in sorted((ROOT / top).glob("*.py")):
            module = importlib.import_module(f"{top}.{path.stem}")
            for name, function in inspect.getmembers(module, inspect.isfunction):
                if function.__module__ != module.__name__ or inspect.signature(function).parameters:
                    continue
                made = get_type_hints(function).get("return")
                if getattr(made, "__name__", "") == "RunConfig":
                    yield f"{top}.{path.stem}.{name} {hash_of(function())}"
                elif getattr(made, "__name__", "") == "Study":
                    for cell, config in function().cells.items():
                        yield f"{top}.{path.stem}.{name} {cell} {hash_of(config)}"


def reading(folder: Path) -> Iterator[str]:
    """What the verbs say of the study and the runs that are kept."""
    with contextlib.chdir(folder):
        run = "runs/kept/kept/sasrec/1"
        if not Path(run).exists():
            (run_folder,) = Path("runs").glob("*/*/sasrec/1")
            run = str(run_folder)
        yield called("show", run)
        yield called("show", "corpus")
        yield called("evaluate", run, "--candidates", "full", "uniform-20")
        yield called("recommend", run, "--items", "1,2,3")
        yield called("report", "kept", "--out", "again")
        for name in ("results.csv", "report.html"):
            for path in sorted(Path("again").rglob(name)):
                yield f"{path.name} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        shutil.rmtree("again")


def fields() -> Iterator[str]:
    """The dotted names that `run` takes."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        research.cli.main.main(["run", "baselines.s3rec.joint", "--help"])
    yield from sorted(set(re.findall(r"--[a-z0-9_.-]+\.[a-z0-9_.-]+", out.getvalue())))


def tests() -> Iterator[str]:
    """Names of all tests with their parameters, without the files that they stand in."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-o", "addopts=", "tests"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    yield from sorted(line.partition("::")[2] for line in ended.stdout.splitlines() if "::" in line)


def counts() -> Iterator[str]:
    """Assertions of the tests, and citations in all Python files and pages."""
    asserted: Counter[str] = Counter()
    for path in (ROOT / "tests").rglob("*.py"):
        if path.name != Path(__file__).name:
            tree = ast.parse(path.read_text())
            asserted["assert"] += sum(isinstance(node, ast.Assert) for node in ast.walk(tree))
            asserted["raises"] += path.read_text().count("pytest.raises")
    yield from (f"{name} {count}" for name, count in sorted(asserted.items()))
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    texts = [path.read_text() for path in pages]
    for top in ("research", "baselines", "experiments", "tests"):
        texts += [prose_of(path) for path in (ROOT / top).rglob("*.py") if path != Path(__file__)]
    for kind, pattern in CITATIONS.items():
        found = Counter(match for text in texts for match in re.findall(pattern, text))
        yield f"{kind} {sum(found.values())}"
        yield from (f"{kind} {text} {count}" for text, count in sorted(found.items()))


def prose_of(path: Path) -> str:
    """A file's docstrings and comments."""
    with path.open("rb") as file:
        tokens = list(tokenize.tokenize(file.readline))
    return "\n".join(
        token.string
        for token in tokens
        if token.type == tokenize.COMMENT or token.string.startswith('"""')
    )


def gathered(folder: Path) -> dict[str, list[str]]:
    """Everything, by kind."""
    return {
        "losses": list(losses(folder / "corpus")),
        "hashes": list(config_hashes()),
        "reading": "\n".join(reading(folder)).splitlines(),
        "fields": list(fields()),
        "tests": list(tests()),
        "counts": list(counts()),
    }


def main(verb: str, path: str) -> int:
    """Write, or say what differs; 1 where something does."""
    torch.set_num_threads(1)
    folder = Path(path).resolve()
    kept = folder / "unchanged.json"
    if verb == "write":
        folder.mkdir(parents=True)
        make_corpus(folder)
        (folder / "kept_study.py").write_text(STUDY)
        with contextlib.chdir(folder):
            sys.path.insert(0, str(folder))
            print(called("study", "kept_study:study", "--threads", "1", "--quiet"), file=sys.stderr)
        kept.write_text(json.dumps(gathered(folder), indent=1))
        return 0
    before, now = json.loads(kept.read_text()), gathered(folder)
    differs = 0
    for kind, lines in before.items():
        changed = list(difflib.unified_diff(lines, now[kind], kind, kind, lineterm="", n=0))
        print(f"{kind}: {len(lines)} lines, {'the same' if not changed else 'CHANGED'}")
        print("\n".join(changed[:60]), end="\n" * bool(changed))
        differs += bool(changed)
    return min(differs, 1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
