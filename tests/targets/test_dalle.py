"""Codes of DALL-E's encoder: the authors' numbers, their pickled file without their code, and what is refused."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from reference import problems
from torch import Tensor, nn

from unmask.contracts import Size
from unmask.errors import DataError, SettingsError
from unmask.formats.dalle import read_dalle
from unmask.masks import PatchMask
from unmask.randomness import seeded
from unmask.targets import DalleCodes
from unmask.targets.dalle import DalleEncoder, DalleTarget

VECTORS = Path(__file__).parents[1] / "vectors"
SPEC = DalleCodes(path="nowhere", codes=16, width=8, depth=1)
STATISTICS = problems.statistics(3)


@pytest.fixture(scope="module")
def target() -> DalleTarget:
    with seeded("test dalle"):
        weights = DalleEncoder(16, 8, 1).state_dict()
    target = SPEC.build(4, 3)
    assert not target.complete
    target.take(weights)
    assert target.complete
    return target


def test_scores_are_the_authors() -> None:
    vector = json.loads((VECTORS / "dalle_encoder.json").read_text())
    encoder = DalleEncoder(512, vector["width"], vector["depth"])
    named = dict(encoder.named_parameters())
    assert sorted([name, list(p.shape)] for name, p in named.items()) == vector["parameters"]
    draw = np.random.RandomState(0)
    with torch.no_grad():
        for parameter in named.values():
            fan = parameter[0].numel() if parameter.dim() > 1 else 100
            drawn = draw.standard_normal(parameter.shape) * (2 / fan) ** 0.5
            parameter.copy_(torch.from_numpy(drawn).float())
        images = torch.from_numpy(draw.randint(0, 256, (1, 3, 32, 40))).byte()
        scores = encoder(images.float() / 255)[0]
        torch.testing.assert_close(
            scores[::64].flatten(1), torch.tensor(vector["scores"]), rtol=1e-4, atol=2e-5
        )
        assert scores.argmax(0).tolist() == vector["codes"]
    whole = DalleCodes(path="nowhere", codes=512, width=64, depth=1).build(8, 3)
    whole.take(encoder.state_dict())
    assert whole.codes_of(images).tolist() == [np.ravel(vector["codes"]).tolist()]


def test_the_released_shape_has_its_weights() -> None:
    """53.8 million, 8,192 codes, 8 blocks: appendix A.1."""
    with torch.device("meta"):
        encoder = DalleEncoder(8192, 256, 2)
    assert round(sum(p.numel() for p in encoder.parameters()) / 1e6, 1) == 53.8


@pytest.mark.parametrize("patch_size", [2, 8, 16])
def test_there_is_a_code_for_every_patch_of_any_size(patch_size: int) -> None:
    target = SPEC.build(patch_size, 3)
    images = torch.randint(0, 256, (2, 3, 4 * patch_size, 3 * patch_size), dtype=torch.uint8)
    assert target.codes_of(images).shape == (2, 12)


def test_codes_are_of_the_hidden_patches_and_of_the_pixels_alone(target: DalleTarget) -> None:
    images = torch.randint(0, 256, (3, 3, 16, 24), dtype=torch.uint8)
    removed = torch.zeros(3, 24, dtype=torch.bool)
    removed[0, [1, 23]] = removed[1, [0, 5]] = removed[2, [7, 8]] = True
    mask = PatchMask.of(removed)
    with torch.autocast("cpu", torch.bfloat16):
        found = target(images, mask, STATISTICS)
    every = target.codes_of(images)
    assert found.squeeze(-1).tolist() == [
        every[0, [1, 23]].tolist(), every[1, [0, 5]].tolist(), every[2, [7, 8]].tolist(),
    ]  # fmt: skip
    assert target(images, mask, STATISTICS).equal(found)


def test_the_loss_is_cross_entropy_of_the_hidden_patches(target: DalleTarget) -> None:
    guess, codes = torch.randn(2, 3, 16), torch.randint(0, 16, (2, 3, 1)).float()
    found = target.loss(guess, codes)
    for row in range(2):
        for place in range(3):
            wanted = -guess[row, place].log_softmax(0)[int(codes[row, place])]
            assert found[row, place] == pytest.approx(float(wanted), abs=1e-5)
    assert not any(parameter.requires_grad for parameter in target.parameters())


def test_there_is_no_picture(target: DalleTarget) -> None:
    images = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    mask = problems.first_patches_kept(1, 16, 4)
    with pytest.raises(SettingsError, match="into pictures without its decoder"):
        target.pixels(torch.zeros(1, 16, 16), images, mask, STATISTICS, "neighbors")


def test_other_than_colour_images_are_refused() -> None:
    with pytest.raises(
        SettingsError, match="needs colour images with 3 channels, and these have 4"
    ):
        SPEC.build(16, 4)
    with pytest.raises(SettingsError, match="width must be at least 1"):
        DalleCodes(path="nowhere", width=0)


@contextmanager
def pretended() -> Iterator[type[nn.Module]]:
    """Classes under the names of the authors' package, while the context lasts."""
    names = {"dall_e.encoder": ("Encoder", "EncoderBlock"), "dall_e.utils": ("Conv2d",)}
    made: dict[str, ModuleType] = {"dall_e": ModuleType("dall_e")}
    for name, classes in names.items():
        made[name] = ModuleType(name)
        for each in classes:
            setattr(made[name], each, type(each, (nn.Module,), {"__module__": name}))
    sys.modules.update(made)
    try:
        yield made["dall_e.encoder"].Encoder
    finally:
        for name in made:
            del sys.modules[name]


def pickled(path: Path, encoder: nn.Module) -> Path:
    """The encoder as a pickled module of classes that this machine has not, as the released file is."""
    with pretended() as whole:
        released = whole()
        for name, part in encoder.named_modules():
            kind = type(part).__name__
            if kind in ("_Conv", "_Block"):
                owner = "dall_e.utils" if kind == "_Conv" else "dall_e.encoder"
                part.__class__ = getattr(
                    sys.modules[owner], "Conv2d" if kind == "_Conv" else "EncoderBlock"
                )
            assert name is not None
        released.blocks = encoder.get_submodule("blocks")
        released.device = torch.device("cpu")
        torch.save(released, path)
    return path


def test_the_released_file_is_read_without_its_code(tmp_path: Path) -> None:
    encoder = DalleEncoder(16, 8, 2)
    wanted = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    shape, found = read_dalle(str(pickled(tmp_path / "encoder.pkl", encoder)))
    assert shape == (16, 8, 2)
    same(found, wanted)
    torch.save(wanted, tmp_path / "tensors.pt")
    shape, found = read_dalle(str(tmp_path / "tensors.pt"))
    assert shape == (16, 8, 2)
    same(found, wanted)


def same(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    assert found.keys() == wanted.keys()
    assert all(found[name].equal(wanted[name]) for name in wanted)


class Evil:
    """Runs code when it is unpickled by the usual way."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("ran"),))  # type: ignore[return-value]


def test_what_the_file_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError,
        match=r"nowhere does not exist; set --objective.target.path to the released encoder.pkl",
    ):
        read_dalle("nowhere")
    Path("half.pkl").write_bytes(
        pickled(tmp_path / "encoder.pkl", DalleEncoder(16, 8, 1)).read_bytes()[:2000]
    )
    with pytest.raises(DataError, match=r"half.pkl is damaged, incompletely downloaded"):
        read_dalle("half.pkl")
    torch.save(Evil(), "evil.pkl")
    with pytest.raises(DataError, match=r"evil.pkl is a pickle with more than tensors \(getattr\)"):
        read_dalle("evil.pkl")
    assert not Path("ran").exists()
    torch.save({"weight": torch.zeros(2)}, "other.pt")
    with pytest.raises(DataError, match="is not the encoder of DALL-E's tokenizer"):
        read_dalle("other.pt")


def test_patches_of_eight_pixels_need_no_resizing(target: DalleTarget) -> None:
    exact = SPEC.build(8, 3)
    exact.take(target.tokenizer.state_dict())
    images = torch.randint(0, 256, (1, 3, 16, 24), dtype=torch.uint8)
    wanted = exact.tokenizer(images.float() / 255).argmax(1)
    assert wanted.shape[1:] == Size(2, 3)
    assert exact.codes_of(images).equal(wanted.flatten(1))
