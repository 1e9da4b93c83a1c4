"""Features kept on disk: given again unchanged, and never for anything else than what they were computed of."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import tiny

import unmask
from unmask.contracts import ImageSource, Size
from unmask.data import Folder
from unmask.data.cache import cache_folder
from unmask.data.labelled import Subset, open_labelled
from unmask.encoders.vit import VisionTransformer
from unmask.errors import DataError
from unmask.evaluation.features import features
from unmask.evaluation.store import CachedFeatures, FeatureStore, features_folder
from unmask.formats.model import ModelSpec

CPU = torch.device("cpu")


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    return tiny.write_classes(tmp_path / "data", count=6)


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    return tiny.make_run(tiny.write_images(tmp_path_factory.mktemp("spec"), 2)).model


def opened(data: Path) -> ImageSource:
    return Folder(path=str(data)).open()


def same(one: CachedFeatures, other: CachedFeatures) -> bool:
    """Whether all tensors are equal to the bit."""
    pairs = zip(one.features, other.features, strict=True)
    return all(a.equal(b) if isinstance(a, torch.Tensor) else a == b for a, b in pairs)


def the_file(store: FeatureStore) -> Path:
    (path,) = store.folder.iterdir()
    assert path.suffix == ".safetensors"
    return path


def refused(*_: object) -> None:
    raise AssertionError("nothing should be computed")


@pytest.mark.parametrize("kind", ["features", "tokens"])
def test_given_again_to_the_bit_without_computing(
    store: FeatureStore, classes: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = getattr(store, kind)(opened(classes))
    monkeypatch.setattr(VisionTransformer, "encode", refused)
    again = getattr(store, kind)(opened(classes))
    assert (first.from_disk, again.from_disk) == (False, True)
    assert same(first, again)
    assert again.seconds == pytest.approx(first.seconds, abs=1e-3)


def test_both_kinds_lie_side_by_side_and_agree(store: FeatureStore, classes: Path) -> None:
    for _ in range(2):
        vectors, tokens = store.features(opened(classes)), store.tokens(opened(classes))
        torch.testing.assert_close(vectors.features.cls, tokens.features.tokens[:, 0])
        torch.testing.assert_close(vectors.features.mean, tokens.features.tokens[:, 1:].mean(1))
    assert len(list(store.folder.iterdir())) == 2
    assert vectors.from_disk
    assert tokens.from_disk


def rewritten(data: Path) -> None:
    """Another picture of as many bytes in a file whose time is then set back."""
    file = data / "cats" / "02.png"
    before = file.stat()
    content = bytearray(file.read_bytes())
    other = bytearray((data / "cats" / "03.png").read_bytes())
    content[:] = other[: len(content)] + bytes(max(0, len(content) - len(other)))
    file.write_bytes(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert file.stat().st_mtime_ns == before.st_mtime_ns


def added(data: Path) -> None:
    shutil.copy(data / "cats" / "00.png", data / "cats" / "zz.png")


def removed(data: Path) -> None:
    (data / "dogs" / "01.png").unlink()


def moved_to_another_class(data: Path) -> None:
    (data / "cats" / "05.png").rename(data / "dogs" / "xx.png")


def class_renamed(data: Path) -> None:
    (data / "cats").rename(data / "wolves")


@pytest.mark.parametrize(
    "change", [rewritten, added, removed, moved_to_another_class, class_renamed]
)
def test_changed_images_are_computed_again(
    store: FeatureStore,
    encoder: VisionTransformer,
    spec: ModelSpec,
    classes: Path,
    change: Callable[[Path], None],
) -> None:
    store.features(opened(classes))
    change(classes)
    found = store.features(opened(classes))
    assert not found.from_disk
    fresh = features(encoder, opened(classes), spec.image_size, spec.statistics, CPU)
    assert found.features.cls.equal(fresh.cls)
    assert found.features.labels.equal(fresh.labels)
    assert store.features(opened(classes)).from_disk


def test_another_part_of_the_images_is_another_set(store: FeatureStore, classes: Path) -> None:
    for seed in (0, 1):
        labelled = open_labelled(Folder(path=str(classes)), seed)
        assert isinstance(labelled.train, Subset)
        assert not store.features(labelled.train).from_disk
        assert not store.features(labelled.test).from_disk
        assert store.features(labelled.train).from_disk


@pytest.mark.parametrize("name", ["blocks.0.mlp.fc2.bias", "pos_embed", "mean"])
def test_changed_weights_are_computed_again(
    store: FeatureStore, encoder: VisionTransformer, spec: ModelSpec, classes: Path, name: str
) -> None:
    before = store.features(opened(classes))
    with torch.no_grad():
        encoder.state_dict()[name].view(-1)[0] += 0.01
    found = FeatureStore(store.folder, encoder, spec, CPU).features(opened(classes))
    assert not found.from_disk
    assert not same(found, before)


def test_heads_are_told_apart_though_tensors_do_not_tell(
    store: FeatureStore, encoder: VisionTransformer, spec: ModelSpec, classes: Path
) -> None:
    before = store.features(opened(classes))
    other = replace(spec, encoder=replace(spec.encoder, num_heads=4))
    twin = other.build_encoder().eval()
    twin.load_state_dict(encoder.state_dict())
    found = FeatureStore(store.folder, twin, other, CPU).features(opened(classes))
    assert not found.from_disk
    assert not same(found, before)


def test_another_size_is_computed_again(
    store: FeatureStore, encoder: VisionTransformer, spec: ModelSpec, classes: Path
) -> None:
    before = store.features(opened(classes))
    larger = replace(spec, image_size=Size(10, 8))
    found = FeatureStore(store.folder, encoder, larger, CPU).features(opened(classes))
    assert not found.from_disk
    assert not same(found, before)


def test_another_version_computes_again(
    store: FeatureStore,
    encoder: VisionTransformer,
    spec: ModelSpec,
    classes: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store.features(opened(classes))
    monkeypatch.setattr(unmask, "__version__", "99.0")
    assert not FeatureStore(store.folder, encoder, spec, CPU).features(opened(classes)).from_disk


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    """A single bit of the last number."""
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(2000))


def of_something_else(path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"cls": torch.zeros(2, 2)}, path)


@pytest.mark.parametrize("damage", [cut, emptied, flipped, garbage, of_something_else])
def test_damaged_files_are_computed_again_with_a_note(
    store: FeatureStore, classes: Path, damage: Callable[[Path], None]
) -> None:
    whole = store.features(opened(classes))
    path = the_file(store)
    damage(path)
    found = store.features(opened(classes))
    assert not found.from_disk
    assert same(found, whole)
    (note,) = found.notes
    assert str(path) in note
    assert "is damaged" in note
    assert store.features(opened(classes)).from_disk
    assert the_file(store) == path


def test_a_file_under_another_ones_name_is_not_served(
    store: FeatureStore, encoder: VisionTransformer, spec: ModelSpec, classes: Path
) -> None:
    store.features(opened(classes))
    first = the_file(store)
    content = first.read_bytes()
    first.unlink()
    larger = FeatureStore(store.folder, encoder, replace(spec, image_size=Size(10, 10)), CPU)
    expected = larger.features(opened(classes))
    the_file(store).write_bytes(content)
    found = larger.features(opened(classes))
    assert not found.from_disk
    assert "it has other features" in found.notes[0]
    assert same(found, expected)


def test_images_that_could_not_be_read_are_tried_again(store: FeatureStore, classes: Path) -> None:
    class Flaky:
        """The folder on a disk that fails for one image."""

        def __init__(self, whole: ImageSource, broken: bool) -> None:
            self.whole, self.broken = whole, broken

        def __getattr__(self, name: str) -> object:
            return getattr(self.whole, name)

        def __len__(self) -> int:
            return len(self.whole)

        def __getitem__(self, position: int) -> object:
            if self.broken and position == 3:
                raise DataError("cannot be read (Input/output error)")
            return self.whole[position]

    def flaky(broken: bool) -> CachedFeatures:
        return store.features(Flaky(opened(classes), broken))  # pyright: ignore

    first, still, healed = flaky(True), flaky(True), flaky(False)
    assert len(first.features.labels) == 11
    assert not any(result.from_disk for result in (first, still, healed))
    assert "1 images cannot be read" in first.notes[0]
    assert still.features.unreadable == [("cats/03.png", "cannot be read (Input/output error)")]
    assert len(healed.features.labels) == 12
    assert flaky(False).from_disk


def test_unfinished_files_are_never_read_and_go_first(
    store: FeatureStore, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.folder.mkdir()
    unfinished = store.folder / ".1-aa.safetensors"
    unfinished.write_bytes(bytes(10**6))
    os.utime(unfinished, (0, 0))
    monkeypatch.setattr("unmask.evaluation.store.WHOLE", 10**6)
    store.features(opened(classes))
    assert not unfinished.exists()
    assert store.features(opened(classes)).from_disk


def test_the_folder_is_bounded_and_what_is_used_stays(
    store: FeatureStore, encoder: VisionTransformer, spec: ModelSpec, classes: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    sizes = [Size(8, 8), Size(10, 8), Size(10, 10)]
    stores = [FeatureStore(store.folder, encoder, replace(spec, image_size=s), CPU) for s in sizes]
    stores[0].features(opened(classes))
    one = the_file(store)
    os.utime(one, (1, 1))
    monkeypatch.setattr("unmask.evaluation.store.WHOLE", int(2.5 * one.stat().st_size))
    stores[1].features(opened(classes))
    for path in store.folder.iterdir():
        os.utime(path, (2 if path == one else 3, 2))
    assert stores[0].features(opened(classes)).from_disk  # so it was used last
    stores[2].features(opened(classes))
    assert len(list(store.folder.iterdir())) == 2
    assert stores[0].features(opened(classes)).from_disk
    assert not stores[1].features(opened(classes)).from_disk


def test_what_is_too_large_is_not_kept(
    store: FeatureStore, classes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unmask.evaluation.store.LARGEST", 100)
    found = store.tokens(opened(classes))
    assert "more than the limit" in found.notes[0]
    assert not store.folder.exists()


def test_a_folder_that_cannot_be_written_costs_time_alone(
    tmp_path: Path, encoder: VisionTransformer, spec: ModelSpec, classes: Path
) -> None:
    (tmp_path / "file").write_text("")
    store = FeatureStore(tmp_path / "file" / "features", encoder, spec, CPU)
    found = store.features(opened(classes))
    assert len(found.features.labels) == 12
    assert "cannot be written" in found.notes[0]


def test_where_features_lie(tmp_path: Path, classes: Path) -> None:
    run = tiny.begin(tmp_path / "run", classes)
    assert features_folder(run.root) == run.root / "features"
    assert features_folder(tmp_path / "weights.pth") == cache_folder() / "features"
    run.features.write_text("in the way")
    assert features_folder(run.root) == cache_folder() / "features"
