"""The Python entry point: `unmask.load`, `.embed`, `.reconstruct`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image
from runs import tiny

import unmask
from unmask.contracts import Size
from unmask.errors import DataError, RunError, SettingsError
from unmask.masking import BlockMasking, GridMasking, RandomMasking
from unmask.objectives import MAE
from unmask.runs.folder import RunFolder
from unmask.runs.model import Model
from unmask.runs.reconstruct import painted_mask
from unmask.runs.run import Run


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp("load") / "images")


@pytest.fixture(scope="module")
def run(images: Path) -> RunFolder:
    return tiny.finished_run(images.parent / "run", images)


@pytest.fixture(scope="module")
def model(run: RunFolder) -> Model:
    return unmask.load(run.root)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users have it: without the shape checks, which would speak first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def pixels(height: int, width: int, channels: int = 3, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randint(256, (channels, height, width), generator=random, dtype=torch.uint8)


class TestLoad:
    def test_gives_the_weights_of_the_newest_checkpoint(self, run: RunFolder, model: Model) -> None:
        tiny.assert_same_tensors(model.objective.state_dict(), tiny.newest(run).read("model"))
        assert (model.step, model.damaged) == (6, [])
        assert model.run == Run.read(run, "pretrain")
        assert not model.objective.training

    def test_takes_text_and_paths(self, run: RunFolder) -> None:
        assert unmask.load(str(run.root)).step == unmask.load(run.root).step

    def test_passes_over_a_damaged_checkpoint(self, images: Path, tmp_path: Path) -> None:
        folder = tiny.begin(tmp_path / "run", images)
        tiny.one_step(folder), tiny.one_step(folder)
        (tiny.newest(folder).folder / "encoder.safetensors").unlink()
        found = unmask.load(folder.root)
        assert found.step == 1
        assert "step-0000002" in found.damaged[0]
        (tiny.newest(folder).folder / "encoder.safetensors").unlink()
        with pytest.raises(RunError, match="no checkpoint to load: all are damaged"):
            unmask.load(folder.root)

    def test_without_a_checkpoint(self, images: Path, tmp_path: Path) -> None:
        folder = tiny.begin(tmp_path / "run", images)
        with pytest.raises(RunError, match="no checkpoint to load: none is written yet"):
            unmask.load(folder.root)

    def test_without_a_run(self, run: RunFolder) -> None:
        with pytest.raises(
            RunError, match=r"there is no file or folder .*rnu .*; runs nearby: .*run"
        ):
            unmask.load(run.root.parent / "rnu")

    def test_draws_nothing_from_global_generators(self, run: RunFolder) -> None:
        before = torch.get_rng_state()
        unmask.load(run.root)
        assert torch.get_rng_state().equal(before)


class TestEmbed:
    def test_shapes_and_values(self, model: Model, images: Path) -> None:
        found = model.embed([images / "00.png", str(images / "01.png")])
        assert (found.cls.shape, found.mean.shape) == ((2, 8), (2, 8))
        assert found.patches.shape == (2, 16, 8)
        torch.testing.assert_close(found.mean, found.patches.mean(1))
        assert found.cls.isfinite().all()
        assert not found.cls[0].equal(found.cls[1])

    def test_same_image_same_features(self, model: Model, images: Path) -> None:
        first, second = (model.embed([images / "05.png"]) for _ in range(2))
        assert first.cls.equal(second.cls)
        assert first.patches.equal(second.patches)

    def test_order_does_not_matter(self, model: Model, images: Path) -> None:
        files = [images / f"{n:02}.png" for n in range(4)]
        there, back = model.embed(files).cls, model.embed(files[::-1]).cls
        torch.testing.assert_close(there, back.flip(0), rtol=1e-5, atol=1e-6)

    def test_files_and_their_pixels_are_the_same(self, model: Model, tmp_path: Path) -> None:
        image = pixels(8, 8)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "same.png")
        assert model.embed([tmp_path / "same.png"]).cls.equal(model.embed(image[None]).cls)

    def test_every_pixel_counts(self, model: Model) -> None:
        """Encoding never masks."""
        image = pixels(8, 8)
        before = model.embed(image[None]).cls
        for row, column in np.ndindex(4, 4):
            changed = image.clone()
            changed[:, 2 * row, 2 * column] ^= 255
            assert not model.embed(changed[None]).cls.equal(before)

    def test_other_sizes_of_tensors(self, model: Model) -> None:
        assert model.embed(pixels(6, 14)[None]).patches.shape == (1, 21, 8)
        with pytest.raises(
            SettingsError, match=r"7 x 14 pixels .* nearest size that works is 8 x 14"
        ):
            model.embed(pixels(7, 14)[None])

    def test_other_channels(self, model: Model) -> None:
        with pytest.raises(SettingsError, match="trained on 3 channels, got 4"):
            model.embed(pixels(8, 8, 4)[None])

    def test_grey_is_repeated(self, model: Model) -> None:
        grey = pixels(8, 8, 1)[None]
        expected = model.embed(grey.repeat(1, 3, 1, 1))
        assert torch.equal(model.embed(grey).patches, expected.patches)

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            (
                torch.zeros(1, 3, 8, 8).long(),
                r"uint8 tensor \[b c h w\] .*, got torch.int64 of shape",
            ),
            (
                torch.zeros(5, 8, 8, dtype=torch.uint8),
                r"\(5, 8, 8\) has 5 channels, read as \[c h w\]",
            ),
            (
                torch.full((1, 3, 8, 8), -2.0),
                r"floats must lie from 0 to 1, got -2 to -2; leave out the",
            ),
            (torch.full((1, 3, 8, 8), 255.0), r"give values of 0 to 255 as uint8"),
            (torch.full((3, 8, 8), torch.nan), r"image 0: floats must lie from 0 to 1, got nan"),
        ],
    )
    def test_wrong_tensors(
        self, model: Model, unchecked: None, wrong: torch.Tensor, words: str
    ) -> None:
        with pytest.raises((SettingsError, DataError), match=words):
            model.embed(wrong)

    def test_files_that_cannot_be_read(self, model: Model, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"gone\.png cannot be read \(No such file"):
            model.embed([tmp_path / "gone.png"])
        (tmp_path / "text.png").write_text("words")
        with pytest.raises(DataError, match=r"text\.png: not an image of a known format"):
            model.embed([tmp_path / "text.png"])

    def test_no_image(self, model: Model, unchecked: None) -> None:
        with pytest.raises(SettingsError):
            model.embed([])


class TestReconstruct:
    def test_pictures_that_fit_together(self, model: Model, images: Path) -> None:
        found = model.reconstruct(images / "02.png", seed=3)
        shape = found.original.shape
        assert shape == (3, 8, 8)
        hidden = (found.pasted != found.original).any(0)
        assert not (hidden & ~found.hidden).any()
        assert 0 < hidden.sum() <= 48
        assert (found.masked[:, hidden] == 0.5).all()
        visible = (found.masked == found.original).all(0)
        assert visible.sum() >= 16
        assert found.pasted[:, visible].equal(found.original[:, visible])
        assert found.pasted[:, hidden].equal(found.rebuilt[:, hidden])
        assert found.interpolated[:, visible].equal(found.original[:, visible])
        assert not found.interpolated[:, hidden].equal(found.pasted[:, hidden])
        forms = (found.masked, found.rebuilt, found.pasted, found.interpolated, found.original)
        for picture in forms:
            assert picture.min() >= 0
            assert picture.max() <= 1

    def test_error_is_the_root_mean_square_on_hidden_pixels(self, model: Model) -> None:
        painted = torch.zeros(8, 8, dtype=torch.bool)
        painted[2:6, 4:8] = True
        found = model.reconstruct(pixels(8, 8), painted)
        off = ((found.rebuilt - found.original) * 255)[:, painted]
        assert found.error == pytest.approx(off.square().mean().sqrt().item(), rel=1e-5)

    def test_seeds(self, model: Model) -> None:
        image = pixels(8, 8)
        first, second = (model.reconstruct(image, seed=1) for _ in range(2))
        assert first.rebuilt.equal(second.rebuilt)
        assert not model.reconstruct(image, seed=2).masked.equal(first.masked)

    @pytest.mark.parametrize(
        "mask", [RandomMasking(ratio=0.5), BlockMasking(ratio=0.5), GridMasking(stride=4)]
    )
    def test_every_masking(self, model: Model, mask: Any) -> None:
        found = model.reconstruct(pixels(8, 8), mask)
        share = (found.masked == 0.5).all(0).float().mean()
        assert share == (15 / 16 if isinstance(mask, GridMasking) else 0.5)

    @pytest.mark.parametrize("size", [(24, 8), (9, 31), (100, 100), (3, 3)])
    def test_proportions_stay(self, model: Model, size: tuple[int, int]) -> None:
        """Whole patches of about the trained area: never more than a patch off."""
        found = model.reconstruct(pixels(*size))
        height, width = found.original.shape[-2:]
        assert (height % 2, width % 2) == (0, 0)
        scale = (64 / (size[0] * size[1])) ** 0.5
        assert abs(height - size[0] * scale) <= 1
        assert abs(width - size[1] * scale) <= 1

    def test_hidden_pixels_are_not_read(self, run: RunFolder, model: Model) -> None:
        """With levels from the neighbours; the true ones are read, and said so on the sheet."""
        image, painted = pixels(8, 8), torch.zeros(8, 8, dtype=torch.bool)
        painted[2:8, 2:6] = True
        changed = torch.where(painted, 255 - image, image)
        honest = [model.reconstruct(i, painted, levels="neighbors") for i in (image, changed)]
        assert honest[0].rebuilt[:, painted].equal(honest[1].rebuilt[:, painted])
        assert honest[0].masked.equal(honest[1].masked)
        cheating = [model.reconstruct(i, painted, levels="true") for i in (image, changed)]
        assert not cheating[0].rebuilt[:, painted].equal(cheating[1].rebuilt[:, painted])

    def test_grey_model(self, tmp_path: Path) -> None:
        images = tiny.write_images(tmp_path / "grey", channels=1)
        recipe = replace(
            tiny.RECIPE, objective=replace(tiny.RECIPE.objective, masking=GridMasking())
        )
        found = unmask.load(tiny.finished_run(tmp_path / "run", images, recipe=recipe).root)
        assert found.embed([images / "00.png"]).cls.shape == (1, 8)
        result = found.reconstruct(images / "00.png")
        assert result.original.shape[0] == 1
        assert (result.masked == 0.5).float().mean() == pytest.approx(0.75, abs=0.02)

    def test_own_target_of_pixels_ignores_levels(self, tmp_path: Path, images: Path) -> None:
        from unmask.targets import Pixels

        spec: MAE = replace(tiny.RECIPE.objective, target=Pixels())
        recipe = replace(tiny.RECIPE, objective=spec)
        found = unmask.load(tiny.finished_run(tmp_path / "run", images, recipe=recipe).root)
        image = pixels(8, 8)
        honest, cheating = (found.reconstruct(image, levels=x) for x in ("neighbors", "true"))  # pyright: ignore
        assert honest.rebuilt.equal(cheating.rebuilt)


class TestPaintedMask:
    def test_half_a_patch_is_enough(self) -> None:
        painted = torch.zeros(4, 4)
        painted[0, :2] = 1  # half of the first patch
        painted[0, 2] = 1  # a quarter of the second
        painted[2:, 2:] = 1
        found = painted_mask(painted, Size(2, 2))
        assert found.removed.tolist() == [[True, False, False, True]]

    def test_any_size_of_paint(self) -> None:
        painted = torch.zeros(33, 100, dtype=torch.bool)
        painted[:, 50:] = True
        assert painted_mask(painted, Size(2, 4)).removed.tolist() == [
            [False, False, True, True] * 2
        ]

    @pytest.mark.parametrize(("value", "what"), [(0, "hides none"), (1, "hides all")])
    def test_nothing_or_everything(self, value: int, what: str) -> None:
        with pytest.raises(SettingsError, match=f"this mask {what} of the 4 patches"):
            painted_mask(torch.full((8, 8), value), Size(2, 2))
