"""Every example runs: without arguments (with less training than it asks for), and on a run and files."""

import ast
import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from runs import tiny

import unmask
from unmask.errors import SettingsError
from unmask.recipes import find_recipe
from unmask.runs.folder import RunFolder

EXAMPLES = Path(__file__).parents[2] / "examples"
LONGEST = 60

Example = Callable[..., str]


@pytest.fixture
def example(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Example:
    """`example("embed", ...)`: run it in an empty folder; what it printed."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import own_recipe

    short = replace(own_recipe.RECIPE, epochs=0.2, schedule=tiny.RECIPE.schedule)
    short = replace(short, schedule=replace(short.schedule, warmup_epochs=0.1))
    monkeypatch.setattr(own_recipe, "RECIPE", short)
    monkeypatch.chdir(tmp_path)

    def run(name: str, *words: object) -> str:
        file = EXAMPLES / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(file), *map(str, words)])
        threads = torch.get_num_threads()
        runpy.run_path(str(file), run_name="__main__")
        torch.set_num_threads(threads)
        return capsys.readouterr().out

    return run


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_classes(tmp_path_factory.mktemp("examples") / "animals")


@pytest.fixture(scope="module")
def trained(classes: Path) -> RunFolder:
    return tiny.finished_run(classes.parent / "run", classes)


def test_every_example_is_short_and_tested() -> None:
    names = {file.stem for file in EXAMPLES.glob("*.py")}
    assert names == {
        "pretrain_from_python",
        "embed",
        "reconstruct",
        "evaluate",
        "own_recipe",
        "convert",
        "labels_file",
        "neighbours",
        "odd_images",
    }
    for file in EXAMPLES.glob("*.py"):
        assert len(file.read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda file: file.stem)
def test_examples_use_public_names_alone(file: Path) -> None:
    names: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("unmask"):
            assert node.module == "unmask"
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            ours = {alias.name for alias in node.names if alias.name.startswith("unmask")}
            assert ours <= {"unmask"}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "unmask":
            names.add(node.attr)
    assert names <= set(unmask.__all__)
    assert names


@pytest.mark.slow
def test_pretrain_from_python(example: Example, classes: Path, tmp_path: Path) -> None:
    said = example("pretrain_from_python")
    assert "step 5 of 5, loss " in said  # 0.2 epochs of 1,442 digits, 64 a step: 4.5
    assert "32 features an image" in said
    said = example("pretrain_from_python", classes, tmp_path / "mine")
    assert f"{tmp_path / 'mine'}: own, step 1, 32 features an image" in said
    assert tiny.newest(RunFolder(tmp_path / "mine")).info.step == 1


@pytest.mark.slow
def test_embed(example: Example, trained: RunFolder, classes: Path) -> None:
    assert example("embed").count(" is most like digit ") == 10
    assert example("embed", trained.root, classes).count(" is most like ") == 10


@pytest.mark.slow
def test_neighbours(example: Example, trained: RunFolder, classes: Path) -> None:
    pytest.importorskip("polars", reason="polars is not installed")
    for words in ([], [trained.root, classes]):
        assert "label_of_nearest" in example("neighbours", *words)


@pytest.mark.slow
def test_odd_images(example: Example, trained: RunFolder, classes: Path) -> None:
    assert "heat maps: " in example("odd_images")
    said = example("odd_images", trained.root, classes / "cats", classes / "dogs")
    assert said.count("odd: ") == 5
    assert Path("odd/sheet.png").exists()


@pytest.mark.slow
def test_reconstruct(example: Example, trained: RunFolder, classes: Path) -> None:
    for words in ([], [trained.root, classes / "cats" / "00.png"]):
        said = example("reconstruct", *words)
        for mask in ("random", "grid", "painted"):
            assert f"{mask}: error " in said
            with Image.open(f"{mask}.png") as sheet:
                assert min(sheet.size) > 200


@pytest.mark.slow
def test_evaluate(example: Example, trained: RunFolder, classes: Path) -> None:
    said = example("evaluate")
    assert "1442 images to learn from; the data's own train and test folders" in said
    said = example("evaluate", trained.root, classes)
    for words in (
        "random initialisation  knn       cls",
        "logistic  mean    plain            top-1",
    ):
        assert words in said


@pytest.mark.slow
def test_convert(example: Example, trained: RunFolder) -> None:
    for words in ([], [trained.root]):
        said = example("convert", *words)
        assert said.count("read back equal") == 4
        assert "timm: model.safetensors, " in said


@pytest.mark.slow
def test_labels_file(example: Example, trained: RunFolder, classes: Path, tmp_path: Path) -> None:
    said = example("labels_file")
    assert "frozen, cls: mAP " in said
    assert "test      mAP " in said
    assert said.count(".png: ") == 5


def test_own_recipe(example: Example) -> None:
    assert "objective=MAE(masking=RandomMasking(ratio=0.75)" in example("own_recipe")
    recipe = find_recipe(f"{EXAMPLES / 'own_recipe.py'}:RECIPE")
    assert (recipe.encoder.embed_dim, recipe.image_size) == (32, (8, 8))
    with pytest.raises(SettingsError, match=r"it has \['OURS', 'RECIPE'\]"):
        find_recipe(f"{EXAMPLES / 'own_recipe.py'}:MINE")
