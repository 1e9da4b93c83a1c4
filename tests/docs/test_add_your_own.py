"""The examples of docs/add-your-own.md: each is put into a copy of the package as the document tells, and used through commands."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from runs import tiny

from unmask.annotations import ClassMaps
from unmask.channels import IMAGENET
from unmask.contracts import Batch, Part, Size
from unmask.encoders import ViT
from unmask.errors import SettingsError
from unmask.masking import draw_masks
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.randomness import seeded
from unmask.runs.folder import RunFolder

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "add-your-own.md").read_text(encoding="utf-8")
OWN = ROOT / "docs" / "own"


def own(name: str) -> ModuleType:
    """The module of an example, where it lies."""
    spec = importlib.util.spec_from_file_location(f"own_{name}", OWN / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


class TestSalientMasking:
    def test_the_patches_with_the_most_detail_are_hidden(self) -> None:
        generator = torch.Generator().manual_seed(0)
        images = torch.full((2, 3, 8, 12), 90, dtype=torch.uint8)
        busy = torch.randint(256, (2, 3, 4, 12), generator=generator, dtype=torch.uint8)
        images[:, :, 4:] = busy
        masking = own("salient").SalientMasking(ratio=0.5, chance=0.0)
        mask = draw_masks(masking, images, Size(4, 6), generator)
        assert mask.removed.view(2, 4, 6)[:, 2:].all()
        assert not mask.removed.view(2, 4, 6)[:, :2].any()

    def test_an_image_alone_has_the_mask_that_it_has_among_others(self) -> None:
        images = torch.randint(256, (4, 3, 8, 8), generator=torch.Generator().manual_seed(0))
        masking, grid = own("salient").SalientMasking(ratio=0.5, chance=0.3), Size(4, 4)
        whole = draw_masks(masking, images.byte(), grid, torch.Generator().manual_seed(1))
        part = Part(torch.tensor([2]), 4)
        one = images[2:3].byte()
        alone = draw_masks(masking, one, grid, torch.Generator().manual_seed(1), part=part)
        assert alone.removed[0].equal(whole.removed[2])


class TestJEPA:
    grid = Size(4, 6)

    def module(self) -> torch.nn.Module:
        spec = own("jepa").JEPA(
            blocks=2,
            block_share=0.2,
            predictor=SelfAttentionDecoder(embed_dim=8, depth=1, num_heads=2),
        )
        encoder = ViT(patch_size=2, embed_dim=8, depth=1, num_heads=2)
        with seeded("test jepa"):
            return spec.build(encoder.build(Size(8, 12), 3, IMAGENET.tensors()))

    def batch(self, images: torch.Tensor, part: Part | None = None) -> Batch:
        return Batch((images,), None, torch.arange(len(images)), 0, part=part)

    def test_the_context_is_outside_of_all_blocks(self) -> None:
        images = torch.randint(256, (5, 3, 8, 12), dtype=torch.uint8)
        module = self.module()
        masks = module.masks(self.batch(images), self.grid, torch.Generator().manual_seed(0))
        blocks = masks.targets.removed.view(5, 2, -1)
        assert (blocks.sum(2) == 2 * 3).all()  # round(0.45 x 4) rows and round(0.45 x 6) columns
        assert masks.context.kept_index.shape == (5, 24 - 2 * 6)
        assert not blocks.any(1).gather(1, masks.context.kept_index).any()

    def test_a_part_has_its_rows_of_the_step(self) -> None:
        images = torch.randint(256, (5, 3, 8, 12), dtype=torch.uint8)
        module, rows = self.module(), torch.tensor([1, 4])
        whole, part = (
            module.masks(batch, self.grid, torch.Generator().manual_seed(0))
            for batch in (self.batch(images), self.batch(images[rows], Part(rows, 5)))
        )
        assert part.context.removed.equal(whole.context.removed[rows])
        assert part.targets.removed.equal(whole.targets.removed.view(5, 2, -1)[rows].flatten(0, 1))

    def test_blocks_that_leave_nothing(self) -> None:
        with pytest.raises(SettingsError, match="may cover a grid of 4 x 4; use fewer"):
            own("jepa").JEPA(blocks=4, block_share=0.25).context_of(Size(4, 4))


class TestCoverage:
    """The score of shares, against a loop over images and classes."""

    kind = ClassMaps(names=("grass", "water", "road"))

    def maps(self) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(0)
        truth = torch.randint(3, (6, 5, 4), generator=generator)
        truth[torch.rand(truth.shape, generator=generator) < 0.2] = 255
        return torch.randn(6, 3, generator=generator), truth

    def test_mean_error_of_shares(self) -> None:
        outputs, truth = self.maps()
        scoring = own("coverage").Errors(self.kind)
        scoring.add(outputs, truth)
        errors: list[float] = []
        for guess, one in zip(outputs.softmax(1).tolist(), truth, strict=True):
            known = [int(c) for c in one.flatten() if c != 255]
            shares = [known.count(c) / len(known) for c in range(3)]
            errors.append(sum(abs(a - b) for a, b in zip(guess, shares, strict=True)) / 2)
        score = scoring.result()
        assert score.value == pytest.approx(1 - sum(errors) / 6)
        assert score.images == 6

    def test_parts_of_several_processes_add_up(self) -> None:
        outputs, truth = self.maps()
        module = own("coverage")
        whole, first, second, nothing = (module.Errors(self.kind) for _ in range(4))
        whole.add(outputs, truth)
        first.add(outputs[:4], truth[:4])
        second.add(outputs[4:], truth[4:])
        merged = nothing.merged([first, nothing, second]).result()
        assert merged.value == pytest.approx(whole.result().value)
        assert merged.images == whole.result().images


def edited(text: str, change: list[str]) -> str:
    """A text with a change of the document: lines that begin with -, + or a space are removed, put in, or passed."""
    lines, place = text.splitlines(), 0
    for line in change:
        if line[0] == "+":
            lines.insert(place, line[1:])
            place += 1
            continue
        place = lines.index(line[1:], place)
        if line[0] == "-":
            del lines[place]
        else:
            place += 1
    return "\n".join(lines) + "\n"


def write_data(folder: Path) -> Path:
    """Twenty dark images with a bright rectangle, and masks that say where it is."""
    random = np.random.default_rng(0)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(20):
        image = random.integers(0, 80, (12, 10, 3), dtype=np.uint8)
        mask = np.zeros((12, 10), dtype=np.uint8)
        top, left = random.integers(0, 6, 2)
        mask[top : top + 6, left : left + 5] = 1
        image[mask == 1] += 150
        mask[0] = 255
        Image.fromarray(image).save(folder / "images" / f"{number:02}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{number:02}.png")
    (folder / "classes.txt").write_text("ground\nroof\n")
    return folder


SALIENT = ["pretrain", "data/images", "objective.masking:salient"]
JEPA = [
    *("pretrain", "data", "--data-kind", "masked-folder", "objective:jepa"),
    *("--objective.blocks", "2", "--objective.block-share", "0.25"),
    *("objective.predictor:self-attention", "--objective.predictor.embed-dim", "8"),
    *("--objective.predictor.depth", "1", "--objective.predictor.num-heads", "2"),
]
PRETRAIN = ["--recipe", f"{tiny.__file__}:RECIPE", "--threads", "1", "--workers", "0"]
COVERAGE = [
    *("finetune", "jepa", "data", "--data-kind", "masked-folder", "task:coverage"),
    *("views:random-crop", "test-views:center-crop"),
    *(
        "--epochs",
        "20",
        "--batch-size",
        "4",
        "--lr",
        "0.2",
        "--image-size",
        "8",
        "--threads",
        "1",
        "--workers",
        "0",
    ),
]
COMMANDS: list[list[str]] = [
    [*SALIENT, *PRETRAIN, "--out", "salient"],
    ["stop", *SALIENT, *PRETRAIN, "--out", "salient-halves"],
    ["pretrain", "--resume", "salient-halves"],
    ["reconstruct", "salient", "data/images", "--ratio", "0.5"],
    [*JEPA, *PRETRAIN, "--out", "jepa"],
    ["stop", *JEPA, *PRETRAIN, "--out", "jepa-halves"],
    ["pretrain", "--resume", "jepa-halves"],
    [*COVERAGE, "--out", "coverage"],
    ["stop", *COVERAGE, "--out", "coverage-halves"],
    ["finetune", "--resume", "coverage-halves"],
    [*COVERAGE, "--task.trained-blocks", "0", "--out", "linear"],
    ["predict", "coverage", "data", "--data-kind", "masked-folder", "--out", "answers.csv"],
    [*COVERAGE, "--task.trained-blocks", "1", "--out", "wrong"],
    ["evaluate", "jepa", "data", "--data-kind", "masked-folder"],
]

DRIVER = """
import json, os, signal, sys
from unmask import cli
from unmask.console import train

real = train.training

def stopped(*arguments):
    for report in real(*arguments):
        if report.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        yield report

for number, words in enumerate(json.loads(sys.argv[1])):
    train.training = stopped if words[0] == "stop" else real
    sys.argv = ["unmask", *words[words[0] == "stop":]]
    status = 0
    print(f"=== {number}", flush=True)
    try:
        cli.main()
    except SystemExit as ended:
        status = ended.code or 0
    print(f"=== {number} ended with {status}", flush=True)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all commands ran, one after another in one process, with the examples in the package."""
    folder = tmp_path_factory.mktemp("own")
    package = folder / "src" / "unmask"
    shutil.copytree(ROOT / "src" / "unmask", package, ignore=shutil.ignore_patterns("__pycache__"))
    for name, target in re.findall(r"\(own/(\w+\.py)\) to `(src/unmask/\w+/)`", DOCUMENT):
        shutil.copy(OWN / name, folder / target)
    for block in re.findall(r"```diff\n(.*?)\n```", DOCUMENT, re.DOTALL):
        file, *change = block.splitlines()
        (folder / file).write_text(edited((folder / file).read_text(), change))
    (folder / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "flags.py", folder / "scripts")
    environment = {**os.environ, "PYTHONPATH": str(folder / "src")}
    subprocess.run([sys.executable, "scripts/flags.py"], cwd=folder, env=environment, check=True)
    write_data(folder / "data")
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, json.dumps(COMMANDS)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    (folder / "said.txt").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def ended(place: Path, words: list[str]) -> tuple[int, str]:
    """The exit status of a command, and what it and others said."""
    number, said = COMMANDS.index(words), (place / "said.txt").read_text()
    found = re.search(rf"=== {number} ended with (\d+)", said)
    assert found is not None, said
    return int(found[1]), said


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS[:-2], ids=lambda words: " ".join(words)[:40])
def test_the_commands_know_them(place: Path, words: list[str]) -> None:
    status, said = ended(place, words)
    assert status == (143 if words[0] == "stop" else 0), said


@pytest.mark.slow
@pytest.mark.parametrize("name", ["salient", "jepa", "coverage"])
def test_they_resume_exactly(place: Path, name: str) -> None:
    spec = json.loads((place / name / "spec.json").read_text())["job"]["recipe"]
    kind = {
        "salient": lambda: spec["objective"]["masking"]["kind"],
        "jepa": lambda: spec["objective"]["kind"],
        "coverage": lambda: spec["task"]["kind"],
    }[name]()
    assert kind == name
    tiny.assert_same_end(RunFolder(place / f"{name}-halves"), RunFolder(place / name))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["coverage", "coverage-halves", "linear"])
def test_the_results_hold_the_closeness(place: Path, name: str) -> None:
    results = json.loads((place / name / "results.json").read_text())
    assert results["images"] == 4
    assert results["chance"] < results["closeness"] <= 1


@pytest.mark.slow
def test_what_they_say(place: Path) -> None:
    _, said = ended(place, COMMANDS[0])
    assert (
        "16 images with class maps of 2 classes for training, 4 for testing (20% of the images"
        in said
    )
    assert "test      closeness " in said
    answers = (place / "answers.csv").read_text().splitlines()
    assert len(answers) == 21
    assert "ground;roof" in answers[1]


@pytest.mark.slow
def test_what_does_not_fit_is_refused(place: Path) -> None:
    for words, message in zip(
        COMMANDS[-2:],
        (
            "trained-blocks is all or 0 for coverage, got '1'",
            "comes with class maps, but this task",
        ),
        strict=True,
    ):
        status, said = ended(place, words)
        assert status == 1
        assert message in said
