"""Config classes found by name in sources: ours, a user's file, package or script."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from baselines.popularity import PopularityConfig
from research.config import check_config, from_json, to_json
from research.config_index import (
    PACKAGES,
    config_class,
    config_classes,
    definitions,
    is_config_class,
    stored_name,
)
from research.data.windows import Sliding
from research.errors import InputError
from research.evaluation.ranker import RankerConfig
from research.objectives.base import ObjectiveConfig
from research.runs.config import RunConfig
from tests import ROOT

RANKER = """
from dataclasses import dataclass
from baselines.popularity import PopularityConfig
from research.evaluation.ranker import RankerConfig
from research.runs.config import RunConfig

@dataclass(frozen=True, kw_only=True)
class {name}(RankerConfig):
    share: float = 0.5

    def build(self, corpus, split):
        return PopularityConfig(newest_share=self.share).build(corpus, split)

def cell():
    return RunConfig(ranker={name}(share=0.25))
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose modules can be imported; those that a test wrote are forgotten after it."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.partition(".")[0].startswith("own_"):
            del sys.modules[name]


def own(module: str, name: str = "OwnConfig") -> RunConfig:
    """The run that a module of the working folder makes, which is written first."""
    path = Path(*module.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(RANKER.format(name=name))
    namespace = __import__(module, fromlist=["cell"])
    config = vars(namespace)["cell"]()
    assert isinstance(config, RunConfig)
    return config


def refusal(config: RunConfig) -> str:
    with pytest.raises(InputError) as caught:
        check_config(config)
    return str(caught.value)


def test_no_other_class_of_ours_has_the_name_of_a_config() -> None:
    found = [
        each for package in PACKAGES for alike in definitions(package).values() for each in alike
    ]
    configs = {each.name: each for each in found if each.is_config}
    assert {"RunConfig", "StageConfig", "Sliding", "PopularityConfig"} <= configs.keys()
    assert configs["Sliding"].path == ROOT / "research" / "data" / "windows.py"
    counts = Counter(each.name for each in found)
    assert [name for name in configs if counts[name] > 1] == []


def test_every_config_class_of_ours_is_found_by_its_name() -> None:
    for package in PACKAGES:
        for name, alike in definitions(package).items():
            if any(each.is_config for each in alike):
                kind = config_class(name)
                assert (kind.__name__, stored_name(kind)) == (name, name)
                assert is_config_class(kind)


def test_a_name_is_looked_up_without_importing_what_it_is_not() -> None:
    script = (
        "import sys\n"
        "from research.config_index import config_class, definitions\n"
        "assert 'StageConfig' in definitions('research')\n"
        "assert not {'torch', 'numpy', 'research.training.config'} & set(sys.modules)\n"
        "config_class('StageConfig')\n"
        "assert 'research.training.config' in sys.modules\n"
        "assert 'research.runs.stages' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_the_classes_that_may_stand_for_a_base_are_its_concrete_ones() -> None:
    names = [kind.__name__ for kind in config_classes(RankerConfig)]
    assert names == [
        "EASEConfig",
        "ItemKNNConfig",
        "PopularityConfig",
        "TransitionsConfig",
    ]
    assert {"ClozeConfig", "NextItemConfig", "SPConfig"} <= {
        kind.__name__ for kind in config_classes(ObjectiveConfig)
    }
    assert config_classes(Sliding) == [Sliding]
    assert config_classes(int) == []


def test_a_users_class_may_stand_for_a_base_where_its_package_is_named() -> None:
    config = own("own_mine")
    assert type(config.ranker) in config_classes(RankerConfig, ["own_mine"])
    assert type(config.ranker) not in config_classes(RankerConfig)


@pytest.mark.parametrize("module", ["own_mine", "own_package.deep.mine"])
def test_a_users_class_is_stored_with_its_package_and_read_where_it_is_allowed(module: str) -> None:
    config = own(module)
    package = module.partition(".")[0]
    stored = to_json(config)
    assert stored["ranker"] == {"class": f"{package}:OwnConfig", "share": 0.25}
    assert from_json(stored, RunConfig, allow=[package]) == config
    check_config(config)
    with pytest.raises(InputError, match=f"name its package with --allow {package} if you trust"):
        from_json(stored, RunConfig)


def test_a_class_with_the_name_of_one_of_ours_is_refused_with_both_files(here: Path) -> None:
    message = refusal(own("own_mine", "Sliding"))
    ours = ROOT / "research" / "data" / "windows.py"
    assert message == (
        f"config.ranker: class Sliding of {here / 'own_mine.py'} has the name of a class in {ours};"
        " configs are known by their names, so give yours another one"
    )


def test_two_classes_of_one_name_in_a_package_are_refused_with_both_files(here: Path) -> None:
    config = own("own_package.first")
    (here / "own_package" / "second.py").write_text(RANKER.format(name="OwnConfig"))
    first, second = here / "own_package" / "first.py", here / "own_package" / "second.py"
    message = refusal(config)
    assert message.startswith(f"config.ranker: {first} and {second} both define a config class Own")


def test_two_packages_with_classes_of_one_name_do_not_meet_in_a_run(here: Path) -> None:
    config = own("own_mine")
    (here / "own_other.py").write_text(
        "from dataclasses import dataclass\n"
        "from research.runs.config import RunConfig\n\n"
        "@dataclass(frozen=True, kw_only=True)\n"
        "class OwnConfig(RunConfig):\n    pass\n"
    )
    kind = __import__("own_other").OwnConfig
    assert refusal(kind(ranker=config.ranker)) == (
        "config.ranker: classes own_other:OwnConfig and own_mine:OwnConfig have one name; configs "
        "are known by their names, so rename one of them"
    )


def test_a_class_that_its_file_replaces_is_refused(here: Path) -> None:
    config = own("own_mine")
    namespace = sys.modules["own_mine"]
    vars(namespace)["OwnConfig"] = PopularityConfig
    assert "is not the one that its name leads to" in refusal(config)


def test_a_file_that_cannot_be_parsed_hides_no_other(here: Path) -> None:
    config = own("own_package.mine")
    for name, content in (
        ("two.py", b"print 'two'\n"),
        ("bytes.py", b"\xff\0"),
        ("deep.py", b"(" * 9999),
    ):
        (here / "own_package" / name).write_bytes(content)
    check_config(config)


def test_a_package_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="there is no package own_nowhere to find classes in"):
        from_json({"class": "own_nowhere:X"}, RunConfig, allow=["own_nowhere"])


@pytest.mark.long
def test_a_script_writes_and_reads_its_own_classes(here: Path) -> None:
    (here / "own_script.py").write_text(
        RANKER.format(name="OwnConfig")
        + "from research.config import check_config, to_json\n"
        + "if __name__ == '__main__':\n"
        + "    check_config(cell())\n"
        + "    print(to_json(cell())['ranker'])\n"
    )
    given = (here / "own_script.py").read_text().replace("if __name__ == '__main__':", "if True:")
    for command in (["own_script.py"], ["-m", "own_script"]):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=here, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout == "{'class': 'own_script:OwnConfig', 'share': 0.25}\n"
    typed = subprocess.run(
        [sys.executable, "-c", given],
        cwd=here, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (
        "class OwnConfig of __main__ was typed into a session; put it into a file" in typed.stderr
    )
