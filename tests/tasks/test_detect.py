"""The detector: what it does with odd pictures, random draws, parts of a batch, and frames of pictures."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from reference import problems
from reference.problems import random
from torch import Tensor

from unmask.annotations import ObjectLabels, Objects
from unmask.contracts import Batch, Part
from unmask.encoders.vit import BeitBlocks, ViT
from unmask.errors import SettingsError
from unmask.tasks.canvas import canvas_of, on_canvas
from unmask.tasks.detect import Detect, Detector, learned
from unmask.tasks.detections import Detections

NAMES = ("disc", "box", "never seen")
TASK = Detect(window=3, global_blocks=1, drop_path=0.5, channels=16, sampled=32)
PROBLEM = problems.Problem(size=problems.Size(64, 80), patch_size=8)


def detector(masks: bool = True, task: Detect = TASK, channels: int = 3) -> Detector:
    torch.manual_seed(0)
    encoder = problems.build_encoder(replace(PROBLEM, channels=channels))
    return task.build(encoder, ObjectLabels(names=NAMES, masks=masks))


def objects_of(boxes: list[list[float]], masks: bool = True, **others: Any) -> Objects:
    """Objects whose masks fill their boxes, in a picture of 64 x 80; classes 0 and 1 in turn."""
    sides = torch.tensor(boxes).reshape(-1, 4)
    filled = torch.zeros(len(sides), 64, 80, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(filled, boxes, strict=True):
        mask[int(top) : int(bottom), int(left) : int(right)] = True
    return Objects(sides, torch.arange(len(sides)) % 2, filled if masks else None, **others)


USUAL = [[4.0, 6, 30, 28], [40, 20, 76, 60]]


def batch_of(annotations: list[Objects], sizes: Tensor | None = None, channels: int = 3) -> Batch:
    count = len(annotations)
    images = torch.randint(256, (count, channels, 64, 80), generator=random(1), dtype=torch.uint8)
    return Batch((images,), tuple(annotations), torch.arange(count), 0, sizes=sizes)


def test_every_part_learns() -> None:
    model = detector()
    loss = model(batch_of([objects_of(USUAL)] * 2), random(0))
    assert list(loss.parts) == ["objectness", "proposals", "classes", "boxes", "masks"]
    assert loss.total.item() == pytest.approx(sum(part.item() for part in loss.parts.values()))
    loss.total.backward()
    still = {"encoder.cls_token", "encoder.norm.weight", "encoder.norm.bias"}
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name in still), name
    assert model.windows.positions[0].rows.grad.any()
    assert model.encoder.patch_embed.proj.weight.grad.any()


def test_a_step_that_is_measured_has_its_share_of_regions_on_objects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of 32 proposals at most 8 are on objects, whatever the weights propose."""
    model, batch = detector(), batch_of([objects_of(USUAL), objects_of([])])
    regions: list[int] = []
    masks_of = model.heads.masks_of
    monkeypatch.setattr(
        model.heads,
        "masks_of",
        lambda levels, boxes, classes: (
            regions.append(sum(map(len, boxes))) or masks_of(levels, boxes, classes)
        ),
    )
    for model.load in (1.0, 0.5, 0.0):
        assert model(batch, random(0)).total.isfinite()
    assert regions == [8, 4, 0]


@pytest.mark.parametrize(
    "odd",
    {
        "no object": objects_of([]),
        "one pixel": objects_of([[20.0, 20, 21, 21]]),
        "less than a pixel": objects_of([[20.0, 20, 20.25, 20.5]]),
        "no area": objects_of([[20.0, 20, 20, 30], [50, 50, 40, 60]]),
        "crowd": objects_of(USUAL, crowd=torch.tensor([True, True])),
        "all of the picture": objects_of([[0.0, 0, 80, 64]]),
        "a hundred": objects_of([[float(n % 70), 3, n % 70 + 9.0, 40] for n in range(100)]),
    }.items(),
    ids=lambda odd: odd[0],
)
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_odd_pictures_are_learned_from(odd: tuple[str, Objects], precision: torch.dtype) -> None:
    """Alone and beside a usual one: losses are finite, also in bfloat16, and every parameter gets a gradient."""
    model = detector()
    for annotations in ([odd[1]], [objects_of(USUAL), odd[1]]):
        batch = batch_of(annotations)
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            loss = model(batch, random(0))
        assert all(part.isfinite() for part in loss.parts.values())
        assert all(part.dtype == torch.float32 for part in loss.parts.values())
        loss.total.backward()
        trained = [p for p in model.parameters() if p.requires_grad]
        assert all(p.grad is not None and p.grad.isfinite().all() for p in trained)


@pytest.mark.parametrize("channels", [1, 4])
@pytest.mark.parametrize("masks", [False, True])
def test_pictures_of_other_sizes_and_channels(channels: int, masks: bool) -> None:
    model = detector(masks, channels=channels)
    sizes = torch.tensor([[64, 80], [33, 17]])
    batch = batch_of(
        [objects_of(USUAL, masks), objects_of([[1.0, 1, 9, 9]], masks)], sizes, channels
    )
    assert model(batch, random(0)).total.isfinite()
    assert ("masks" in model(batch, random(0)).parts) == masks
    found = model.eval().locate(batch.images, sizes, torch.tensor([[128, 160], [66, 34]]))
    for one, (height, width) in zip(found, [(128, 160), (66, 34)], strict=True):
        assert isinstance(one, Detections)
        assert (one.masks is not None) == masks
        assert bool((one.boxes <= torch.tensor([width, height] * 2)).all())
        if one.masks is not None:
            assert one.masks.shape == (len(one.boxes), height, width)


def test_computing_activations_again_changes_no_gradient() -> None:
    """With stochastic depth: the draws are made before the blocks."""
    gradients: list[dict[str, Tensor]] = []
    for saves_memory in (False, True):
        model = detector()
        model.saves_memory = saves_memory
        model(batch_of([objects_of(USUAL)] * 2), random(0)).total.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    kept, again = gradients
    assert kept.keys() == again.keys()
    assert all(torch.equal(kept[name], again[name]) for name in kept)
    assert detector(task=replace(TASK, checkpointing=True)).saves_memory


def test_results_do_not_depend_on_the_parts_of_a_batch() -> None:
    """Two micro-batches give the loss and gradients of the whole; and the same draws are made again."""
    model = detector()
    batch = batch_of([objects_of(USUAL), objects_of(USUAL[:1]), objects_of([]), objects_of(USUAL)])
    results = []
    for parts in ([[0, 1, 2, 3]], [[0, 1, 2, 3]], [[0, 3], [1, 2]], [[2], [0], [3], [1]]):
        model.zero_grad()
        total = 0.0
        for rows in parts:
            part = batch._replace(part=Part(torch.arange(4), 4)).rows(rows)
            loss = model(part, random(7)).total * len(rows) / 4
            loss.backward()
            total += loss.item()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        results.append((total, gradient))
    (whole, gradient), (again, same), *split = results
    assert whole == again
    assert torch.equal(gradient, same)
    for total, other in split:
        assert total == pytest.approx(whole, rel=1e-5)
        torch.testing.assert_close(other, gradient, atol=1e-5, rtol=1e-3)
    other = model(batch, random(8)).total.item()
    assert other != whole


def test_the_surroundings_of_a_picture_do_not_change_what_is_found() -> None:
    """Alone or padded beside a larger picture."""
    model = detector().eval()
    batch = batch_of([objects_of([])] * 2)
    sizes, wholes = torch.tensor([[64, 80], [40, 24]]), torch.tensor([[64, 80], [40, 24]])
    small = batch.images[1:, :, :40, :24]
    together = model.locate(batch.images, sizes, wholes)[1]
    alone = model.locate(small, None, wholes[1:])[0]
    assert len(alone.scores) > 0
    torch.testing.assert_close(together.boxes, alone.boxes, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(together.scores, alone.scores, atol=1e-4, rtol=1e-4)


def test_boxes_are_mapped_to_the_original_picture() -> None:
    """The original is twice as high and three times as wide as the view."""
    model = detector().eval()
    images, sizes = batch_of([objects_of([])]).images, torch.tensor([[64, 60]])
    (view,) = model.locate(images, sizes, torch.tensor([[64, 60]]))
    (whole,) = model.locate(images, sizes, torch.tensor([[128, 180]]))
    assert len(view.boxes) == len(whole.boxes) == 100
    torch.testing.assert_close(whole.boxes, view.boxes * torch.tensor([3.0, 2, 3, 2]))
    assert torch.equal(whole.scores, view.scores)
    assert whole.masks.shape == (100, 128, 180)
    assert bool((view.scores[:-1] >= view.scores[1:]).all())


def test_pictures_are_padded_with_the_mean() -> None:
    images = torch.full((2, 3, 20, 24), 51, dtype=torch.uint8)
    size = canvas_of(images, problems.Size(2, 5), 8)
    canvas = on_canvas(images, torch.tensor([[20, 24], [3, 5]]), size)
    assert canvas.shape == (2, 3, 24, 40)
    assert canvas[0, :, :20, :24].unique().tolist() == pytest.approx([0.2])
    assert int(canvas[1].isfinite().sum()) == 3 * 3 * 5
    values = torch.full((1, 2, 8, 8), 300.0)
    assert on_canvas(values, None, canvas_of(values, problems.Size(1, 1), 8)) is values


def test_crowds_and_boxes_without_area_are_not_learned() -> None:
    crowd = torch.tensor([False, True, False])
    objects = objects_of([*USUAL, [9.0, 9, 9, 12]], crowd=crowd)
    found = learned(objects)
    assert found.boxes.tolist() == [USUAL[0]]
    assert found.masks.shape == (1, 64, 80)


def test_a_frozen_encoder_stays_as_it_is() -> None:
    model = detector(task=replace(TASK, trained_blocks="0"))
    loss = model(batch_of([objects_of(USUAL)]), random(0))
    loss.total.backward()
    assert all(p.grad is None for part in (model.encoder, model.windows) for p in part.parameters())
    assert all(p.grad is not None for p in model.pyramid.parameters())


def test_layers_for_the_learning_rate() -> None:
    """Relative positions have the rate of their block, heads that of the last layer."""
    model = detector()
    layers = {name: model.layer_of(name) for name, _ in model.named_parameters()}
    assert layers["encoder.pos_embed"] == layers["encoder.patch_embed.proj.bias"] == 0
    assert layers["encoder.blocks.1.attn.qkv.weight"] == 2
    assert layers["windows.positions.1.columns"] == 2
    assert {
        layers[name] for name in layers if name.split(".")[0] in ("pyramid", "proposals", "heads")
    } == {3}
    assert model.layers == 4


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(
        SettingsError, match="global_blocks must be at most the number of blocks, got 4 of 2"
    ):
        Detect().check(2)
    with pytest.raises(SettingsError, match=r"drop_path must be at least 0 and below 1, got 1\.5"):
        Detect(drop_path=1.5)
    with pytest.raises(SettingsError, match="window must be at least 1, got 0"):
        Detect(window=0)
    with pytest.raises(SettingsError, match="--trained-blocks must be all or 0, got 'half'"):
        Detect(trained_blocks="half")
    beit = ViT(patch_size=8, embed_dim=24, depth=1, num_heads=3, blocks=BeitBlocks())
    encoder = beit.build(problems.Size(16, 16), 3, problems.statistics(3))
    with pytest.raises(SettingsError, match="needs an encoder with position embeddings"):
        Detect().build(encoder, ObjectLabels(names=NAMES))


def test_classes_in_a_picture_are_those_of_its_detections() -> None:
    found = Detections(torch.zeros(3, 4), torch.tensor([0.9, 0.8, 0.3]), torch.tensor([2, 0, 2]))
    (prediction,) = Detect().predictions([found])
    assert prediction.classes == prediction.chosen == [2, 0]
    assert prediction.probabilities == pytest.approx([0.9, 0.8])
