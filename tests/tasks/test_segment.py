"""Semantic segmentation: loss, padding, parts of a batch, frozen parts, and class maps of pictures of any size."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from reference import problems
from reference.problems import random
from torch import Tensor, nn
from torch.nn import functional as F

from unmask.annotations import ClassMaps
from unmask.contracts import Batch, Part, Size
from unmask.encoders.positions import resized
from unmask.errors import SettingsError
from unmask.spec import from_json, to_json
from unmask.tasks.dpt import DPT
from unmask.tasks.map_layers import BatchNorms, NoNorms
from unmask.tasks.segment import Segment, Segmenter
from unmask.tasks.segment_heads import LinearMap
from unmask.tasks.task import Task
from unmask.tasks.upernet import UperNet
from unmask.training.hardware import autocast
from unmask.traits import Locating

PROBLEM = problems.Problem(size=Size(16, 24))  # a grid of 4 x 6 patches
MAPS = ClassMaps(names=("road", "tree", "car"), ignored=255)
LINEAR = Segment(head=LinearMap())
UPERNET = Segment(head=UperNet(channels=8), drop_path=0.3, auxiliary_weight=0.4)
DENSE = Segment(head=DPT(channels=8, map_channels=(4, 5, 6, 7)), drop_path=0.3)
TASKS = [LINEAR, UPERNET, DENSE]


def build(task: Segment = UPERNET, problem: problems.Problem = PROBLEM) -> Segmenter:
    torch.manual_seed(0)
    module = task.build(problems.build_encoder(problem), MAPS)
    for parameter in module.parameters():  # heads begin near zero
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return module


def batch_of(count: int = 4, seed: int = 0) -> Batch:
    generator = random(seed)
    truth = torch.randint(3, (count, *PROBLEM.size), generator=generator)
    truth[torch.rand(truth.shape, generator=generator) < 0.2] = 255
    images = problems.pictures(PROBLEM, count, seed)
    return problems.batch_of(images)._replace(annotations=truth)


def gradients(module: Segmenter) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def backward(module: Segmenter, *parts: Batch) -> dict[str, Tensor]:
    """The gradients of the mean loss over parts, as the training loop adds them."""
    module.zero_grad()
    images = sum(len(part.index) for part in parts)
    for part in parts:
        (module(part, random(7)).total * (len(part.index) / images)).backward()
    return gradients(module)


@pytest.mark.parametrize("task", TASKS, ids=["linear", "upernet", "dpt"])
def test_loss_is_a_loop_over_known_pixels(task: Segment) -> None:
    module, batch = build(replace(task, drop_path=0.0)).eval(), batch_of(2)
    loss = module(batch, random(0)).total

    def error(scores: Tensor) -> float:
        logs = F.interpolate(scores.detach(), PROBLEM.size, mode="bilinear").double().log_softmax(1)
        total = 0.0
        for image, row, column in torch.cartesian_prod(*map(torch.arange, (2, 16, 24))).tolist():
            known = int(batch.annotations[image, row, column])
            total -= 0.0 if known == 255 else float(logs[image, known, row, column])
        return total / (2 * 16 * 24)

    maps = module._maps(batch.images, None)
    expected = error(module.head(maps))
    if module.auxiliary is not None:
        expected += 0.4 * error(module.auxiliary(maps.patches[2]))
    assert loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("ignored", [0, 255])
def test_ignored_pixels_have_no_part_in_the_loss(ignored: int) -> None:
    """Neither do scores there, nor is anything learned from pixels that are all ignored."""
    torch.manual_seed(0)
    module = LINEAR.build(problems.build_encoder(PROBLEM), replace(MAPS, ignored=ignored))
    scores = torch.randn(2, 3, *PROBLEM.size, generator=random(0), requires_grad=True)
    truth = torch.randint(1, 3, (2, *PROBLEM.size), generator=random(1))
    hidden = torch.rand(truth.shape, generator=random(2)) < 0.3
    truth[hidden] = ignored
    (gradient,) = torch.autograd.grad(module._error(scores, truth, PROBLEM.size), scores)
    assert not gradient.mT.permute(0, 3, 2, 1)[hidden].any()
    assert gradient.permute(0, 2, 3, 1)[~hidden].abs().sum(1).min() > 0
    nothing = batch_of()._replace(annotations=torch.full((4, *PROBLEM.size), ignored))
    loss = module(nothing, random(0)).total
    assert loss.item() == 0.0
    loss.backward()
    assert not any(bool(grad.any()) for grad in gradients(module).values())


@pytest.mark.parametrize("task", TASKS, ids=["linear", "upernet", "dpt"])
def test_parts_of_a_batch_give_the_gradient_of_the_whole(task: Segment) -> None:
    """Dropped channels and skipped halves included: they are drawn for the whole step."""
    module, batch = build(replace(task, head=replace(task.head, dropout=0.4))).train(), batch_of()
    whole = backward(module, batch)
    of_step = batch._replace(part=Part(torch.arange(4), 4))
    for cuts in ([0, 2, 4], [0, 1, 2, 3, 4], [0, 3, 4]):
        parts = [of_step.rows(slice(a, b)) for a, b in pairwise(cuts)]
        for name, gradient in backward(module, *parts).items():
            torch.testing.assert_close(gradient, whole[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("task", TASKS, ids=["linear", "upernet", "dpt"])
def test_smaller_pictures_do_not_depend_on_the_padding_of_their_batch(task: Segment) -> None:
    """A picture of 9 x 13 pixels alone, and padded beside a large one: the same loss, at the canvas of a crop."""
    module = build(replace(task, drop_path=0.0)).eval()
    image = torch.randint(256, (1, 3, 9, 13), generator=random(3), dtype=torch.uint8)
    truth = torch.randint(3, (1, 9, 13), generator=random(4))
    alone = problems.batch_of(image)._replace(annotations=truth)
    beside = problems.batch_of(F.pad(image, (0, 8, 0, 5), value=77))
    beside = beside._replace(
        annotations=F.pad(truth, (0, 8, 0, 5), value=255), sizes=torch.tensor([[9, 13]])
    )
    first, second = module(alone, random(0)).total, module(beside, random(0)).total
    torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-5)


def test_padding_is_seen_as_the_mean_of_the_channel() -> None:
    module = build(LINEAR).eval()
    image = torch.randint(256, (1, 3, 8, 24), generator=random(5), dtype=torch.uint8)
    mean = problems.statistics(3).mean[:, None, None].expand(3, 8, 24)
    seen = torch.cat([image[0] / 255, mean], 1)
    (found,) = module.locate(image, None, torch.tensor([[8, 24]]))
    scores = module.scores(seen[None])[0, :, :8]
    assert torch.equal(found, scores.argmax(0))


@pytest.mark.parametrize("task", TASKS, ids=["linear", "upernet", "dpt"])
def test_one_window_is_the_plain_pass(task: Segment) -> None:
    module, images = build(task).eval(), problems.pictures(PROBLEM)
    found = module.locate(images, None, torch.tensor([[16, 24]] * 2))
    plain = F.interpolate(module.head(module._maps(images, None)), PROBLEM.size, mode="bilinear")
    assert torch.equal(torch.stack(found), plain.argmax(1))


@pytest.mark.parametrize("averaged", ["scores", "probabilities"])
@pytest.mark.parametrize("size", [(16, 33), (21, 24), (40, 50), (5, 60), (3, 3)])
def test_pictures_of_any_size(averaged: Any, size: tuple[int, int]) -> None:
    """Padded or alone, in a batch or not; in the frame of the original picture."""
    module = build(replace(UPERNET, averaged=averaged)).eval()
    image = torch.randint(256, (1, 3, *size), generator=random(6), dtype=torch.uint8)
    batch = torch.full((2, 3, 40, 60), 9, dtype=torch.uint8)
    batch[1, :, : size[0], : size[1]] = image[0]
    wholes = torch.tensor([[40, 60], [2 * size[0], size[1] + 3]])
    (alone,) = module.locate(image, None, wholes[1:])
    first, second = module.locate(batch, torch.tensor([[40, 60], list(size)]), wholes)
    assert first.shape == (40, 60)
    assert alone.shape == tuple(wholes[1].tolist())
    assert (alone == second).float().mean() > 0.99  # sums in another order
    assert alone.dtype == torch.int64
    assert set(alone.unique().tolist()) <= {0, 1, 2}


def test_missing_values_and_other_numbers_of_channels() -> None:
    problem = replace(PROBLEM, channels=5)
    module = build(DENSE, problem)
    images = torch.rand(2, 5, 16, 24, generator=random(1))
    images[0, 2, :4] = math.nan
    batch = problems.batch_of(images)._replace(annotations=batch_of(2).annotations)
    loss = module(batch, random(0)).total
    loss.backward()
    assert loss.isfinite()
    assert all(bool(grad.isfinite().all()) for grad in gradients(module).values())
    assert [tuple(m.shape) for m in module.eval().locate(images, None, torch.tensor([[16, 24]] * 2))] == [(16, 24)] * 2  # fmt: skip


@pytest.mark.parametrize("task", TASKS, ids=["linear", "upernet", "dpt"])
def test_every_trained_parameter_gets_a_gradient(task: Segment) -> None:
    module = build(task)
    found = backward(module, batch_of())
    trained = {name for name, one in module.named_parameters() if one.requires_grad}
    assert found.keys() == trained
    assert all(bool(grad.any()) for grad in found.values())
    assert "encoder.pos_embed" in trained
    assert ("encoder.norm.weight" in trained) == isinstance(task.head, LinearMap)


@pytest.mark.parametrize("task", TASKS, ids=["linear", "upernet", "dpt"])
@pytest.mark.parametrize("trained", ["0", "1", "half"])
def test_frozen_blocks_keep_still_and_their_tokens(task: Segment, trained: str) -> None:
    module = build(replace(task, trained_blocks=trained, drop_path=0.0))
    found = backward(module, batch_of())
    inside = {name for name in found if name.startswith("encoder.")}
    if trained == "0":
        assert not inside
    else:
        assert inside
        assert all(name.startswith(("encoder.blocks.1.", "encoder.norm.")) for name in inside)
    whole = replace(task, drop_path=0.0).build(module.encoder, MAPS)
    whole.load_state_dict(module.state_dict())
    images = problems.pictures(PROBLEM)
    for ours, theirs in zip(
        module._maps(images, None).patches, whole._maps(images, None).patches, strict=True
    ):
        assert torch.equal(ours, theirs)


def test_maps_are_the_taps_of_the_encoder() -> None:
    """Block i's output is the input of the next; of several class tokens the mean."""
    problem = replace(PROBLEM, channels=2)
    module = build(UPERNET, problem).eval()
    images = problems.pictures(problem)
    taps = module.encoder.encode(images, taps=(1, 2)).taps
    maps = module._maps(images, None)
    assert module.blocks == (1, 1, 1, 2)
    for found, tokens in zip(maps.patches, (taps[0], taps[0], taps[0], taps[1]), strict=True):
        torch.testing.assert_close(found.flatten(2).mT, tokens[:, 1:], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(maps.classes[3], taps[1][:, 0], atol=1e-5, rtol=1e-5)
    normed = build(LINEAR, problem).eval()
    encoded = normed.encoder.encode(images)
    (found,) = normed._maps(images, None).patches
    torch.testing.assert_close(found.flatten(2).mT, encoded.patches, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("task", TASKS, ids=["linear", "upernet", "dpt"])
def test_saving_memory_changes_no_gradient(task: Segment) -> None:
    module, batch = build(task), batch_of()
    plain = backward(module, batch)
    module.saves_memory = True
    saved = backward(module, batch)
    assert plain.keys() == saved.keys()
    for name, gradient in saved.items():
        assert torch.equal(gradient, plain[name]), name


def test_saving_memory_keeps_less_for_the_backward_pass() -> None:
    def bytes_kept(saves: bool) -> int:
        module, kept = build(LINEAR), 0
        module.saves_memory = saves

        def note(tensor: Tensor) -> Tensor:
            nonlocal kept
            kept += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            module(batch_of(), random(0))
        return kept

    assert bytes_kept(True) < 0.6 * bytes_kept(False)


@pytest.mark.parametrize("task", TASKS, ids=["linear", "upernet", "dpt"])
def test_heads_compute_in_float32_under_half_precision(task: Segment) -> None:
    module, seen = build(task), set()
    layers = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.LayerNorm)
    for part in (one for one in module.head.modules() if isinstance(one, layers)):
        part.register_forward_hook(lambda _, __, out: seen.add(out.dtype))
    with autocast(torch.device("cpu"), "bfloat16"):
        loss = module(batch_of(), random(0)).total
        found = module.eval().locate(batch_of().images, None, torch.tensor([[16, 24]] * 4))
    assert seen == {torch.float32}
    assert loss.dtype == torch.float32
    assert len(found) == 4


@pytest.mark.parametrize("grid", [Size(5, 3), Size(2, 8)])
def test_positions_at_another_size_are_bicubic(grid: Size) -> None:
    """Pictures larger than a crop in one pass: the table in two dimensions, rectangles included."""
    module = build(LINEAR)
    encoder = module.encoder
    size = Size(4 * grid.height, 4 * grid.width)
    images = torch.zeros(1, 3, *size, dtype=torch.uint8)
    table = encoder.pos_embed
    assert table is not None
    square = table[:, 1:].reshape(1, 4, 6, -1).permute(0, 3, 1, 2)
    truth = F.interpolate(square, tuple(grid), mode="bicubic", align_corners=False)
    truth = truth.flatten(2).mT
    torch.testing.assert_close(resized(table, Size(4, 6), grid, "bicubic")[:, 1:], truth)
    flat = encoder.embed(images)[:, 1:] - truth  # what is left is one projected patch, everywhere
    torch.testing.assert_close(flat, flat[:, :1].expand_as(flat), atol=1e-5, rtol=1e-5)


def test_predictions_are_shares_of_pixels() -> None:
    (one,) = UPERNET.predictions((torch.tensor([[2, 2], [2, 0]]),))
    assert one.classes == one.chosen == [2, 0]
    assert one.probabilities == [0.75, 0.25]


def test_batch_norms_need_four_images_together() -> None:
    assert UPERNET.least_images == DENSE.least_images == LINEAR.least_images == 1
    task = replace(UPERNET, head=UperNet(channels=8, norm=BatchNorms()))
    assert task.least_images == build(task).least_images == 4


def test_keeps_the_contracts() -> None:
    assert isinstance(UPERNET, Task)
    assert isinstance(build(), Locating)
    for task in TASKS:
        assert from_json(Segment, to_json(task)) == task


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(SettingsError, match="auxiliary head needs a head with four maps"):
        replace(LINEAR, auxiliary_weight=0.4).check(2)
    with pytest.raises(SettingsError, match="must be all, half, or 0 to 2"):
        replace(LINEAR, trained_blocks="3").check(2)
    with pytest.raises(SettingsError, match="stride must be above 0 and at most 1, got 0"):
        replace(LINEAR, stride=0.0)
    with pytest.raises(SettingsError, match="--trained-blocks must be all, half or a number"):
        replace(LINEAR, trained_blocks="most")
    assert NoNorms().least_images == 1
