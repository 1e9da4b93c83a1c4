"""What a loaded model takes from a Python program, and what it says of itself."""

from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from PIL import Image
from runs import tiny
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

import unmask
from unmask.errors import DataError, ResourceError, RunError, SettingsError, UnmaskError
from unmask.runs.model import Model


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp("inputs") / "images")


@pytest.fixture(scope="module")
def model(images: Path) -> Model:
    return unmask.load(tiny.finished_run(images.parent / "run", images).root)


@pytest.fixture(scope="module")
def expected(model: Model, images: Path) -> Tensor:
    return model.embed(sorted(images.iterdir())).mean


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users have it: without the shape checks, which would speak first."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def opened(file: Path) -> Image.Image:
    with Image.open(file) as image:
        image.load()
    return image


class Photos(Dataset[Any]):
    """A data set as people write them."""

    def __init__(self, files: list[Path], form: str) -> None:
        self.files, self.form = files, form

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Any:
        image = opened(self.files[number])
        if self.form == "pair":
            return image, number % 2
        if self.form == "mapping":
            return {"label": number % 2, "image": image}
        if self.form == "tensor":
            return torch.from_numpy(np.array(image)).permute(2, 0, 1)
        if self.form == "floats":
            return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
        return image


class TestEveryKindOfImageGivesTheFeaturesOfItsFile:
    def test_a_folder_in_order_of_its_names(
        self, model: Model, images: Path, expected: Tensor
    ) -> None:
        for folder in (images, str(images)):
            features = model.embed(folder)
            assert features.mean.equal(expected)
            assert features.names == tuple(f"{number:02}.png" for number in range(12))

    def test_one_path_is_one_image(self, model: Model, images: Path, expected: Tensor) -> None:
        file = images / "03.png"
        for image in (file, str(file), opened(file), np.array(opened(file))):
            torch.testing.assert_close(model.embed(image).mean, expected[3:4])

    @pytest.mark.parametrize("form", ["picture", "array", "floats", "tensor", "pair"])
    def test_lists(self, model: Model, images: Path, expected: Tensor, form: str) -> None:
        arrays = [np.array(opened(file)) for file in sorted(images.iterdir())]
        forms: dict[str, Any] = {
            "picture": [Image.fromarray(array) for array in arrays],
            "array": arrays,
            "floats": [array.astype(np.float32) / 255 for array in arrays],
            "tensor": [torch.from_numpy(array).permute(2, 0, 1) for array in arrays],
            "pair": [(array, 0) for array in arrays],
        }
        assert model.embed(forms[form]).mean.equal(expected)
        assert model.embed(iter(forms[form])).mean.equal(expected)

    def test_arrays_of_images(self, model: Model, images: Path, expected: Tensor) -> None:
        array = np.stack([np.array(opened(file)) for file in sorted(images.iterdir())])
        assert model.embed(array).mean.equal(expected)
        names = np.array([str(file) for file in sorted(images.iterdir())])
        assert model.embed(names).mean.equal(expected)

    @pytest.mark.parametrize("form", ["picture", "pair", "mapping", "tensor", "floats"])
    def test_data_sets(self, model: Model, images: Path, expected: Tensor, form: str) -> None:
        photos = Photos(sorted(images.iterdir()), form)
        assert model.embed(photos, batch_size=5).mean.equal(expected)

    @pytest.mark.parametrize("pairs", [True, False])
    def test_loaders(self, model: Model, images: Path, expected: Tensor, pairs: bool) -> None:
        pixels = torch.stack([model.transform(file) for file in sorted(images.iterdir())])
        labels = torch.arange(len(pixels))
        data = TensorDataset(pixels, labels) if pairs else TensorDataset(pixels)
        features = model.embed(DataLoader(data, batch_size=5))
        torch.testing.assert_close(features.mean, expected)
        assert features.names[-1] == "image 11"
        floats = DataLoader(TensorDataset(pixels / 255), batch_size=12)
        torch.testing.assert_close(model.embed(floats).mean, expected, rtol=1e-4, atol=1e-5)

    def test_digits_are_all_of_them(self, model: Model) -> None:
        features = model.embed("digits", patches=False)
        assert features.mean.shape == (1797, 8)

    def test_grey_and_alpha(self, model: Model) -> None:
        grey = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
        repeated = np.repeat(grey[..., None], 3, 2)
        expected = model.embed(repeated).mean
        assert model.embed(grey).mean.equal(expected)
        assert model.embed(np.stack([grey, grey])).mean.equal(expected.repeat(2, 1))
        opaque = np.concatenate([repeated, np.full((8, 8, 1), 255, np.uint8)], 2)
        assert model.embed(opaque).mean.equal(expected)
        clear = np.concatenate([repeated, np.zeros((8, 8, 1), np.uint8)], 2)
        assert model.embed(clear).mean.equal(model.embed(np.full((8, 8), 255, np.uint8)).mean)

    def test_a_picture_of_a_camera_is_turned_upright(
        self, model: Model, images: Path, tmp_path: Path
    ) -> None:
        turned = opened(images / "00.png")
        exif = turned.getexif()
        exif[0x0112] = 6
        turned.save(tmp_path / "turned.png", exif=exif)
        file = model.embed(tmp_path / "turned.png").mean
        assert model.embed(opened(tmp_path / "turned.png")).mean.equal(file)
        assert not file.equal(model.embed(images / "00.png").mean)

    def test_sixteen_bits(self, model: Model, tmp_path: Path) -> None:
        deep = np.random.default_rng(0).integers(0, 65536, (8, 8), dtype=np.uint16)
        Image.fromarray(deep).save(tmp_path / "deep.png")
        expected = model.embed(tmp_path / "deep.png").mean
        assert model.embed(opened(tmp_path / "deep.png")).mean.equal(expected)
        assert model.embed(deep).mean.equal(expected)


@pytest.mark.usefixtures("unchecked")
class TestWhatIsNoImage:
    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            (None, "images are a path, a Pillow picture, .*; got NoneType"),
            (7, "got int"),
            (b"bytes", "got bytes"),
            ({"image": 1}, "got dict"),
            ("s", "^s cannot be read"),
            ("https://a.org/b.png", "is an address"),
            ([None], "^image 0: NoneType is no image"),
            ([()], "^image 0: an entry of the data set is empty"),
            ([{"picture": 1}], "has no key image or img or pixel_values; it has picture"),
            (np.zeros(3), r"\[n h w c\], and a tensor .*; got \(3,\)"),
            (np.zeros((2, 9, 9, 3), int), "image 0: pixels are uint8, .* got int64; convert them"),
            (np.zeros((2, 9, 9, 5), np.uint8), r"\(9, 9, 5\) has 5 channels, read as \[h w c\]"),
            (np.array(["a"] * 9).reshape(3, 3), "an array of <U1 holds no pixels"),
            (
                DataLoader(TensorDataset(torch.zeros(4, 3))),
                r"batches \[b c h w\], .* batch 0 is shape",
            ),
            (
                DataLoader(TensorDataset(torch.full((4, 3, 8, 8), 2.0))),
                "floats must lie from 0 to 1",
            ),
        ],
    )
    def test_one_sentence(self, model: Model, wrong: Any, words: str) -> None:
        with pytest.raises(UnmaskError, match=words) as error:
            model.embed(wrong)
        assert len(str(error.value)) < 250

    def test_a_batch_size(self, model: Model, images: Path) -> None:
        with pytest.raises(SettingsError, match="batch_size must be at least 1, got 0"):
            model.embed(images, batch_size=0)

    def test_called_with_a_path(self, model: Model, images: Path) -> None:
        with pytest.raises(SettingsError, match=r"tensor \[b c h w\], got str; model.embed takes"):
            model(str(images))  # pyright: ignore[reportArgumentType]


class TestBatches:
    def test_their_size_changes_nothing(self, model: Model, images: Path) -> None:
        whole, parts = model.embed(images), model.embed(images, batch_size=5)
        torch.testing.assert_close(parts.patches, whole.patches)

    def test_no_more_images_than_a_batch_are_read_ahead(self, model: Model, images: Path) -> None:
        read: list[int] = []

        class Watched(Photos):
            def __getitem__(self, number: int) -> Any:
                read.append(number)
                return super().__getitem__(number)

        photos = Watched(sorted(images.iterdir()), "picture")
        batches = model.embed_batches(photos, batch_size=4)
        first = next(batches)
        assert read == [0, 1, 2, 3]
        assert (first.mean.shape, first.patches.shape) == ((4, 8), (4, 16, 8))

    def test_patches_may_be_left_out(self, model: Model, images: Path) -> None:
        features = model.embed(images, patches=False)
        assert features.patches.shape == (12, 0, 8)
        assert features.mean.equal(model.embed(images).mean)

    def test_patches_that_do_not_fit_in_memory(
        self, model: Model, images: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("unmask.runs.embedding.memory_available", lambda _: 4000)
        with pytest.raises(ResourceError, match=r"of 4 images fill the memory; .* patches=False"):
            model.embed(images, batch_size=4)
        assert model.embed(images, batch_size=4, patches=False).mean.shape == (12, 8)

    def test_the_bar(self, model: Model, images: Path, capsys: pytest.CaptureFixture[str]) -> None:
        model.embed(images)
        model.embed(images, progress=False)
        assert capsys.readouterr() == ("", "")
        model.embed(images, progress=True)
        assert "embed" in capsys.readouterr().err

    def test_features_can_be_learned_from(self, model: Model, images: Path) -> None:
        head = torch.nn.Linear(8, 1)
        head(model.embed(images).mean).sum().backward()
        assert head.weight.grad is not None


class TestAsATorchModule:
    @pytest.fixture
    def pixels(self, model: Model, images: Path) -> Tensor:
        return torch.stack([model.transform(file) for file in sorted(images.iterdir())])

    def test_the_parts_are_those_of_embed(self, model: Model, images: Path, pixels: Tensor) -> None:
        features, tokens = model.embed(images), model.forward_features(pixels)
        assert tokens.shape == (12, 17, 8)
        assert tokens[:, 1:].equal(features.patches)
        assert model(pixels).equal(features.mean)
        assert model.forward_head(tokens, "class").equal(features.cls)
        assert model.encoder(pixels).equal(tokens)

    def test_gradients_reach_the_weights(self, model: Model, pixels: Tensor) -> None:
        model(pixels).sum().backward()
        gradient = model.encoder.patch_embed.proj.weight.grad
        assert gradient is not None
        assert gradient.abs().sum() > 0
        model.encoder.zero_grad()

    def test_transform_is_that_of_evaluation(self, model: Model, images: Path) -> None:
        from unmask.data.in_order import WHOLE_IMAGE, in_order

        source = unmask.Folder(path=str(images)).open("train")
        (batch,) = in_order(source, WHOLE_IMAGE, model.spec.image_size, model.spec.statistics, [])
        ours = [model.transform(opened(file)) for file in sorted(images.iterdir())]
        assert torch.stack(ours).equal(batch.images)


class TestReconstruct:
    def test_pictures_and_arrays(self, model: Model, images: Path) -> None:
        file = images / "02.png"
        expected = model.reconstruct(file, seed=1)
        for image in (str(file), opened(file), np.array(opened(file))):
            assert model.reconstruct(image, seed=1).rebuilt.equal(expected.rebuilt)

    def test_masks_of_numpy(self, model: Model, images: Path) -> None:
        painted = np.zeros((8, 8), bool)
        painted[2:6, 4:8] = True
        expected = model.reconstruct(images / "02.png", torch.from_numpy(painted))
        patches = painted[::2, ::2]
        for mask in (painted, patches, patches.ravel(), patches.astype(float)):
            result = model.reconstruct(images / "02.png", mask)
            assert result.rebuilt.equal(expected.rebuilt)
            assert (result.masked == 0.5).all(0).equal(torch.from_numpy(painted))

    @pytest.mark.usefixtures("unchecked")
    @pytest.mark.parametrize(
        ("mask", "words"),
        [
            ("random", "a mask is an array or tensor that is True .*; got str"),
            (np.zeros(7), r"\[h w\] in pixels, \[4 4\] in patches or \[16\], got \[7\]"),
            (np.zeros((2, 2, 2)), r"got \[2, 2, 2\]"),
            (np.ones((4, 4)), "this mask hides all of the 16 patches"),
        ],
    )
    def test_what_is_no_mask(self, model: Model, images: Path, mask: Any, words: str) -> None:
        with pytest.raises(SettingsError, match=words):
            model.reconstruct(images / "02.png", mask)

    def test_it_can_be_looked_at(
        self, model: Model, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        result = model.reconstruct(images / "02.png", seed=1)
        assert result.save(tmp_path / "sheet.png") == tmp_path / "sheet.png"
        with Image.open(tmp_path / "sheet.png") as sheet:
            assert sheet.width > 4 * 256
            assert sheet.info["Software"] == "unmask"  # so that it is never trained on
        assert result._repr_png_().startswith(b"\x89PNG")
        assert repr(result).startswith(
            f"Reconstruction of 8 x 8 pixels: error {result.error:.1f} of"
        )
        shown: list[Image.Image] = []
        monkeypatch.setattr(Image.Image, "show", lambda image: shown.append(image))
        result.show()
        assert len(shown) == 1

    def test_where_it_cannot_be_saved(self, model: Model, images: Path, tmp_path: Path) -> None:
        result = model.reconstruct(images / "02.png")
        with pytest.raises(SettingsError, match=r"a\.words has no ending of a picture; use \.png"):
            result.save(tmp_path / "a.words")
        with pytest.raises(SettingsError, match=r"a\.png cannot be written \(No such file"):
            result.save(tmp_path / "nowhere" / "a.png")


class TestWhatItSays:
    def test_repr(self, model: Model) -> None:
        words = repr(model)
        assert words.startswith("Model: tiny, step 6\n")
        for fact in (
            "1 block of 8 with 2 heads",
            "8 x 8 pixels, 3 channels of uint8",
            "0.485, 0.456, 0.406",
            "ImageNet's customary values",
            "yes: .reconstruct(image)",
            "cpu",
        ):
            assert fact in words
            assert fact.replace("'", "&#x27;") in model._repr_html_()

    def test_classes_of_a_pretrained_model(self, model: Model, images: Path) -> None:
        with pytest.raises(RunError, match="tiny, step 6 has no classes, because it was not fine-"):
            model.predict(images)

    def test_a_file_that_is_cut_off(self, model: Model, images: Path, tmp_path: Path) -> None:
        whole = (images / "00.png").read_bytes()
        (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
        with Image.open(tmp_path / "cut.png") as image, pytest.raises(DataError, match="truncated"):
            model.embed([image])
