"""A command line is sorted into words and flags before its flags are known."""

from pathlib import Path

import pytest
from commands.said import Unmask

from unmask.console.arguments import peek
from unmask.console.plan import with_smaller_parts
from unmask.recipes import RECIPES


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")


@pytest.mark.parametrize(
    "line",
    [
        "photos",
        "objective.masking:block photos",
        "photos objective.masking:block",
        "--epochs 3 objective.masking:block photos optimizer:lars",
        "objective.masking:block --objective.masking.ratio 0.5 photos",
        "task.head:token-probe optimizer.clipping:each photos",
        "--shard photos",
        "--json photos",
        "--shard=True photos",
    ],
)
def test_the_words_are_data_and_not_kinds(line: str) -> None:
    assert peek(line.split()).words == ["photos"]


@pytest.mark.parametrize(
    "name", ["a:b", "C:photos", "of 2024: summer", "views:random-crop", "x:*.tar"]
)
def test_a_file_whose_name_holds_a_colon_is_data(name: str) -> None:
    if "*" not in name:
        Path(name).mkdir()
    assert peek(["--epochs", "3", name, "objective.masking:block"]).words == [name]


def test_flags_keep_their_values() -> None:
    seen = peek(["--out", "a:b", "--recipe=my.py:MINE", "--save_every_minutes", "3", "--shard"])
    assert seen.flags == {
        "out": "a:b",
        "recipe": "my.py:MINE",
        "save-every-minutes": "3",
        "shard": "True",
    }


def test_a_rate_given_by_its_alias_stays() -> None:
    recipe = RECIPES["mae-ti4"].recipe
    assert with_smaller_parts(recipe, 12, peek([])) != recipe
    assert with_smaller_parts(recipe, 12, peek(["--lr", "1e-3"])) == recipe


def test_kinds_may_come_before_the_images(unmask: Unmask, images: Path, recipe: list[str]) -> None:
    said = unmask("pretrain", "objective.masking:block", images, *recipe, "--out", "run")
    assert said.status == 0, said.err
    assert "objective.masking:block" not in said.err


def test_a_kind_alone_asks_for_the_images(unmask: Unmask) -> None:
    said = unmask("pretrain", "objective.masking:block")
    assert said.status == 1
    assert "which images?" in said.err


def test_images_whose_name_holds_a_colon(unmask: Unmask, images: Path, recipe: list[str]) -> None:
    Path("odd:name").symlink_to(images)
    said = unmask("pretrain", "odd:name", *recipe, "objective.masking:block", "--out", "run")
    assert said.status == 0, said.err
