"""The strips of rebuilt images."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from runs import tiny

from unmask.own_output import is_marked
from unmask.report import looks
from unmask.report.looks import Looks, steps_looked_at, strip_path, strips
from unmask.runs.folder import RunFolder
from unmask.runs.run import Run


@pytest.fixture
def folder(tmp_path: Path, images_here: Path) -> RunFolder:
    return tiny.finished_run(tmp_path / "run", images_here)


def opened(folder: RunFolder) -> tuple[Looks, dict[str, torch.Tensor]]:
    run = Run.read(folder)
    return Looks(run, folder, run.data.open("train")), tiny.newest(folder).read("model")


def test_a_look_leaves_weights_and_random_numbers_alone(folder: RunFolder) -> None:
    view, tensors = opened(folder)
    before = {name: tensor.clone() for name, tensor in tensors.items()}
    state = torch.get_rng_state()
    view.take(6, tensors)
    tiny.assert_same_tensors(before, tensors)
    assert torch.equal(torch.get_rng_state(), state)


def test_ten_strips_are_kept_spread_evenly(folder: RunFolder) -> None:
    view, tensors = opened(folder)
    for step in range(1, 31):
        view.take(step, tensors)
        assert len(steps_looked_at(folder)) <= 10
    steps = steps_looked_at(folder)
    assert (steps[0], steps[-1], len(steps)) == (1, 30, 10)
    assert [strip.caption for strip in strips(folder)][:2] == ["what the encoder sees", "step 1"]


def test_strips_past_the_checkpoint_are_forgotten(folder: RunFolder) -> None:
    view, tensors = opened(folder)
    for step in (1, 3, 6):
        view.take(step, tensors)
    view.forget_after(3)
    assert steps_looked_at(folder) == [1, 3]


def test_the_same_images_and_masks_whenever_it_starts(folder: RunFolder) -> None:
    view, tensors = opened(folder)
    view.take(1, tensors)
    again, _ = opened(folder)
    again.take(2, tensors)
    assert strip_path(folder, 1).read_bytes() == strip_path(folder, 2).read_bytes()


def test_strips_are_never_read_as_images(folder: RunFolder) -> None:
    view, tensors = opened(folder)
    view.take(6, tensors)
    assert all(is_marked(strip.path) for strip in strips(folder))


def test_hidden_patches_are_tinted(folder: RunFolder) -> None:
    view, tensors = opened(folder)
    view.take(6, tensors)
    with Image.open(strip_path(folder, looks.HIDDEN)) as strip:
        colours = strip.convert("RGBA").getcolors(100_000)
    assert colours is not None
    tinted = next(count for count, colour in colours if colour == (0x9D, 0xB2, 0xD0, 255))
    assert tinted == 8 * 64 * 64 * 3 // 4  # three quarters of each of eight pictures
