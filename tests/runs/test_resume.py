"""Stopping and going on changes nothing, whatever happens in between."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from PIL import Image
from runs import tiny
from safetensors import SafetensorError

from unmask.data.views import CenterCrop
from unmask.errors import DataError, DivergedError, ResourceError
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run
from unmask.training import checkpoint, logbook

STEPS = 6


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_images(tmp_path_factory.mktemp("resume") / "images")


@pytest.fixture(scope="module")
def whole(images: Path) -> RunFolder:
    """The run in one go; nothing may write to it."""
    return tiny.finished_run(images.parent / "whole", images)


def damage(file: Path) -> None:
    """Change one byte in the middle."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_log_has_one_finite_line_for_every_step(whole: RunFolder) -> None:
    lines = tiny.timeless(whole)
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert np.isfinite([line["loss"] for line in lines]).all()
    assert len({line["loss"] for line in lines}) == STEPS


def test_weights_move(whole: RunFolder, images: Path, tmp_path: Path) -> None:
    """Or all comparisons here would compare what no step has touched."""
    early = tiny.begin(tmp_path / "early", images)
    tiny.one_step(early), tiny.one_step(early)
    before, after = tiny.newest(early).read("model"), tiny.newest(whole).read("model")
    fixed = {"encoder.mean", "encoder.std", "encoder.pos_embed", "decoder.pos_embed"}
    assert {name for name in before if before[name].equal(after[name])} == fixed


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_stopping_after_every_step_changes_nothing(
    whole: RunFolder, images: Path, tmp_path: Path, workers: int
) -> None:
    folder = tiny.begin(tmp_path / "run", images)
    steps = [tiny.one_step(folder, workers=workers) for _ in range(STEPS)]
    assert steps == list(range(1, STEPS + 1))
    tiny.assert_same_end(folder, whole)


@pytest.mark.slow
def test_stopping_in_batches_that_cross_epochs_changes_nothing(
    images: Path, tmp_path: Path
) -> None:
    recipe = replace(tiny.RECIPE, batch_size=5, epochs=3.0)
    whole = tiny.finished_run(tmp_path / "whole", images, recipe=recipe)
    folder = tiny.begin(tmp_path / "run", images, recipe=recipe)
    for _ in range(Run.read(folder, "pretrain").steps):
        tiny.one_step(folder, workers=1)
    tiny.assert_same_end(folder, whole)


def test_saving_often_changes_nothing(whole: RunFolder, images: Path, tmp_path: Path) -> None:
    often = tiny.finish(tiny.begin(tmp_path / "run", images), save_every_minutes=0)
    tiny.assert_same_end(often, whole)


def test_stop_ends_after_the_step_at_hand(images: Path, tmp_path: Path) -> None:
    folder, stop = tiny.begin(tmp_path / "run", images), Event()
    seen = []
    for progress in tiny.go_on(folder, stop=stop):
        seen.append((progress.step, progress.saved))
        if progress.step == 3:
            stop.set()
    assert seen == [(1, False), (2, False), (3, False), (4, True)]
    assert tiny.newest(folder).info.step == 4


def test_without_a_checkpoint_it_starts_at_step_0(
    whole: RunFolder, images: Path, tmp_path: Path
) -> None:
    """And what an earlier attempt left in the log is cut off."""
    folder = tiny.begin(tmp_path / "run", images)
    for progress in tiny.go_on(folder):
        if progress.step == 3:
            break  # nothing is saved
    folder.log.write_text(json.dumps({"step": 1, "loss": 9.0}) + '\n{"step": 2, "lo')
    tiny.finish(folder)
    tiny.assert_same_end(folder, whole)


def test_the_last_two_checkpoints_are_kept(images: Path, tmp_path: Path) -> None:
    folder = tiny.finish(tiny.begin(tmp_path / "run", images), save_every_minutes=0)
    names = sorted(path.name for path in folder.checkpoints.iterdir())
    assert names == ["step-0000005", "step-0000006"]


@pytest.mark.parametrize(
    "file", ["model.safetensors", "training/optimizer.safetensors", "info.json"]
)
def test_a_damaged_checkpoint_is_passed_over(
    whole: RunFolder, images: Path, tmp_path: Path, file: str
) -> None:
    folder = tiny.begin(tmp_path / "run", images)
    for _ in range(4):
        tiny.one_step(folder)
    if file == "info.json":
        (tiny.newest(folder).folder / file).write_text('{"format": 1, "st')
    else:
        damage(tiny.newest(folder).folder / file)
    found, damaged = folder.newest()
    assert found is not None
    assert found.info.step == 3
    (line,) = damaged
    assert "step-0000004" in line
    assert "damaged" in line or "cannot be read" in line
    tiny.finish(folder)
    tiny.assert_same_end(folder, whole)


def test_with_all_checkpoints_damaged_it_begins_anew_and_keeps_what_it_saves(
    whole: RunFolder, images: Path, tmp_path: Path
) -> None:
    folder = tiny.begin(tmp_path / "run", images)
    for _ in range(4):
        tiny.one_step(folder)
    for step in folder.checkpoints.iterdir():
        damage(step / "model.safetensors")
    found, damaged = folder.newest()
    assert found is None
    assert len(damaged) == 2
    assert tiny.one_step(folder) == 1
    assert tiny.newest(folder).info.step == 1
    tiny.finish(folder)
    tiny.assert_same_end(folder, whole)


def test_a_kill_while_the_log_is_cut_loses_no_line(
    whole: RunFolder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines up to the checkpoint are written once and must survive every later start."""
    folder = tiny.begin(tmp_path / "run", images)
    for _ in range(3):
        tiny.one_step(folder)

    def killed(path: Path, content: bytes) -> None:
        with path.open("wb"):
            raise KeyboardInterrupt  # the file is open for writing, and empty

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            tiny.one_step(folder)
    tiny.finish(folder)
    tiny.assert_same_end(folder, whole)


def full_disk(number: int) -> Callable[..., Any]:
    """`save_tensors` on a disk that is full at the given call."""
    save, calls = checkpoint.save_tensors, iter(range(1, 100))

    def failing(tensors: Any, path: Path, metadata: Any) -> None:
        if next(calls) < number:
            return save(tensors, path, metadata)
        Path(path).write_bytes(b"half of a fi")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    return failing


@pytest.mark.parametrize("call", [1, 3])
def test_full_disk_keeps_the_last_checkpoint(
    whole: RunFolder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: int
) -> None:
    folder = tiny.begin(tmp_path / "run", images)
    for _ in range(2):
        tiny.one_step(folder)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_tensors", full_disk(call))
        with pytest.raises(ResourceError, match=r"step 3 .*No space left.*Make room.*--resume"):
            tiny.one_step(folder)
    assert tiny.newest(folder).info.step == 2
    left = sorted(path.name for path in folder.checkpoints.iterdir())
    assert left == ["step-0000001", "step-0000002"]
    tiny.finish(folder)
    tiny.assert_same_end(folder, whole)


@pytest.mark.parametrize("what", ["fsync", "rename"])
def test_failing_disk_keeps_the_last_checkpoint(
    whole: RunFolder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    folder = tiny.begin(tmp_path / "run", images)
    tiny.one_step(folder)

    def failing(*args: Any) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os if what == "fsync" else Path, what, failing)
        with pytest.raises(ResourceError, match="Input/output error"):
            tiny.one_step(folder)
    assert tiny.newest(folder).info.step == 1
    tiny.finish(folder)
    tiny.assert_same_end(folder, whole)


def test_disk_full_while_logging_is_told_as_such(
    whole: RunFolder, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tiny.begin(tmp_path / "run", images)
    tiny.one_step(folder)
    opened = Path.open

    def failing(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if path.name == folder.log.name and mode == "a":
            raise OSError(28, "No space left on device")
        return opened(path, mode, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(logbook.Path, "open", failing)
        with pytest.raises(ResourceError, match="No space left"):
            tiny.one_step(folder)
    assert tiny.newest(folder).info.step == 1
    tiny.finish(folder)
    tiny.assert_same_end(folder, whole)


def test_loss_that_is_not_finite_stops_before_saving(images: Path, tmp_path: Path) -> None:
    schedule = replace(tiny.RECIPE.schedule, base_lr=1e30)
    folder = tiny.begin(tmp_path / "run", images, recipe=replace(tiny.RECIPE, schedule=schedule))
    message = r"loss of step (\d) is (nan|inf).*--schedule\.base-lr.*--precision float32"
    with pytest.raises(DivergedError, match=message) as caught:
        tiny.finish(folder, save_every_minutes=0)
    bad = int(str(caught.value).split()[4])
    assert tiny.newest(folder).info.step == bad - 1
    lines = tiny.timeless(folder)
    assert lines[-1]["step"] == bad
    assert np.isfinite([line["loss"] for line in lines[:-1]]).all()


def test_no_weight_that_is_not_finite_is_saved(images: Path, tmp_path: Path) -> None:
    """A rate can break the weights of the very step that is saved, before any loss shows it."""
    schedule = replace(tiny.RECIPE.schedule, base_lr=1e300)
    folder = tiny.begin(tmp_path / "run", images, recipe=replace(tiny.RECIPE, schedule=schedule))
    with pytest.raises(DivergedError):
        tiny.finish(folder, save_every_minutes=0)
    for tensor in tiny.newest(folder).read("model").values():
        assert tensor.isfinite().all()


def broken_images(folder: Path, count: int, broken: int) -> Path:
    """Images of which the last few have a good header and no pixels."""
    tiny.write_images(folder, count)
    for number in range(count - broken, count):
        file = folder / f"{number:02}.png"
        file.write_bytes(file.read_bytes()[:60])
    return folder


@pytest.mark.parametrize("workers", [0, 2])
def test_images_that_fail_later_are_replaced_and_listed(tmp_path: Path, workers: int) -> None:
    images = broken_images(tmp_path / "images", 12, 2)
    whole = tiny.finished_run(tmp_path / "whole", images, max_set_aside=0.5)
    rows = whole.set_aside.read_text().splitlines()
    assert rows[0] == "file,reason"
    assert sorted(row.partition(",")[0] for row in rows[1:]) == ["10.png", "11.png"]
    assert all("damaged or truncated" in row for row in rows[1:])
    folder = tiny.begin(tmp_path / "run", images, max_set_aside=0.5)
    for _ in range(STEPS):
        tiny.one_step(folder, workers=workers)
    tiny.assert_same_end(folder, whole)
    assert sorted(folder.set_aside.read_text().splitlines()[1:]) == sorted(rows[1:])


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_set_aside_stops_the_run(tmp_path: Path, workers: int) -> None:
    images = broken_images(tmp_path / "images", 12, 4)
    folder = tiny.begin(tmp_path / "run", images, max_set_aside=0.2)
    with pytest.raises(
        DataError, match=r"[34] of 12 images .* 20%; .*set_aside\.csv.*--max-set-aside"
    ):
        tiny.finish(folder, workers=workers)
    assert len(folder.set_aside.read_text().splitlines()) >= 4
    assert folder.newest() == (None, [])


def test_files_refused_in_the_scan_count_as_set_aside(tmp_path: Path) -> None:
    images = tiny.write_images(tmp_path / "images")
    (images / "empty.png").touch()
    folder = tiny.finished_run(tmp_path / "run", images, max_set_aside=0.1)
    assert folder.set_aside.read_text().splitlines() == ["file,reason", "empty.png,empty (0 bytes)"]
    strict = tiny.begin(tmp_path / "strict", images, max_set_aside=0.05)
    with pytest.raises(DataError, match="1 of 13 images cannot be used, more than the allowed 5%"):
        tiny.finish(strict)


def test_views_without_randomness_and_grey_images_resume_too(tmp_path: Path) -> None:
    images = tiny.write_images(tmp_path / "grey", channels=1)
    recipe = replace(tiny.RECIPE, views=CenterCrop())
    whole = tiny.finished_run(tmp_path / "whole", images, recipe=recipe)
    folder = tiny.begin(tmp_path / "run", images, recipe=recipe)
    for _ in range(STEPS):
        tiny.one_step(folder)
    tiny.assert_same_end(folder, whole)
    assert tiny.newest(whole).read("encoder")["mean"].shape == (1,)


def test_digits_resume_too(tmp_path: Path) -> None:
    recipe = replace(tiny.RECIPE, batch_size=32, epochs=0.05)
    whole = tiny.finished_run(tmp_path / "whole", "digits", recipe=recipe)
    folder = tiny.begin(tmp_path / "run", "digits", recipe=recipe)
    for _ in range(Run.read(folder, "pretrain").steps):
        tiny.one_step(folder)
    tiny.assert_same_end(folder, whole)


def test_another_seed_ends_elsewhere(whole: RunFolder, images: Path, tmp_path: Path) -> None:
    other = tiny.finished_run(tmp_path / "other", images, seed=1)
    assert tiny.timeless(other) != tiny.timeless(whole)


def test_a_moved_run_goes_on(whole: RunFolder, images: Path, tmp_path: Path) -> None:
    folder = tiny.begin(tmp_path / "here", images)
    tiny.one_step(folder)
    shutil.move(folder.root, tmp_path / "there")
    tiny.assert_same_end(tiny.finish(RunFolder(tmp_path / "there")), whole)


def test_pictures_that_change_size_are_another_set(images: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(images, tmp_path / "copy")
    assert tiny.make_run(copy).fingerprint == tiny.make_run(images).fingerprint
    Image.new("RGB", (9, 9)).save(copy / "00.png")
    assert tiny.make_run(copy).fingerprint != tiny.make_run(images).fingerprint
