"""The classifier: its loss, what of it learns, what is dropped, and the average of its weights."""

import copy
import math
from typing import Any

import pytest
import torch
from reference import problems
from reference.problems import Problem
from torch.utils.flop_counter import FlopCounterMode

from unmask.contracts import Batch, Moment, Size
from unmask.errors import SettingsError
from unmask.masking import RandomMasking
from unmask.tasks import Classify
from unmask.tasks.classifier import Classifier
from unmask.tasks.heads import LinearHead, MeanHead
from unmask.training.loop import Planned, train
from unmask.training.optimizers import LayerwiseAdamW


def classifier(classes: int = 5, **settings: Any) -> Classifier:
    torch.manual_seed(0)
    spec = Classify(**{"head": LinearHead(), **settings})
    return spec.build(problems.build_encoder(), problems.classes(classes))


def labelled(count: int = 4) -> Batch:
    batch = problems.batch_of(problems.pictures(Problem(), count=count))
    return batch._replace(annotations=torch.arange(count) % 5)


def test_loss_at_the_start_is_that_of_a_guess() -> None:
    loss = classifier()(labelled(), problems.random(0)).total
    assert loss.item() == pytest.approx(math.log(5), abs=1e-3)


def test_head_starts_near_zero() -> None:
    model = classifier(classes=1000)
    assert model.head.linear.weight.std().item() == pytest.approx(2e-5, rel=0.05)
    assert not model.head.linear.bias.any()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_equals_a_loop(smoothing: float) -> None:
    model, batch = classifier(label_smoothing=smoothing), labelled()
    with torch.no_grad():
        model.head.linear.weight.normal_(generator=problems.random(1))
        model.head.linear.bias.normal_(generator=problems.random(2))
    total = 0.0
    patches = model.encoder.encode(batch.images).patches.detach()
    weight, bias = model.head.linear.weight.detach(), model.head.linear.bias.detach()
    for tokens, label in zip(patches, batch.annotations.tolist(), strict=True):
        mean = sum(tokens) / len(tokens)
        scores = (weight @ mean + bias).tolist()
        whole = math.log(sum(math.exp(score) for score in scores))
        for number, score in enumerate(scores):
            share = smoothing / 5 + (1 - smoothing) * (number == label)
            total -= share * (score - whole) / len(patches)
    assert model(batch, problems.random(0)).total.item() == pytest.approx(total, abs=1e-5)


def test_shown_patches_are_what_the_encoder_sees() -> None:
    model, batch = classifier(), labelled()
    with torch.no_grad():
        model.head.linear.weight.normal_(generator=problems.random(1))
    mask = RandomMasking(ratio=0.5).sample(4, Size(4, 4), problems.random(2))
    tokens = model.encoder.encode_visible(batch.images, mask).patches
    scores = model.head.linear(tokens.mean(1))
    expected = torch.nn.functional.cross_entropy(scores, batch.annotations)
    loss = model(batch._replace(shown=mask.kept_index), problems.random(0)).total
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)


def test_patches_not_shown_move_nothing_and_cost_nothing() -> None:
    model, batch = classifier(), labelled()
    shown = torch.arange(8).expand(4, -1)  # the upper half
    changed = batch.images.clone()
    changed[:, :, 8:] = 255 - changed[:, :, 8:]
    flops, losses = [], []
    for images, these in ((batch.images, None), (batch.images, shown), (changed, shown)):
        with FlopCounterMode(display=False) as counter:
            losses.append(
                model(batch._replace(views=(images,), shown=these), problems.random(0)).total
            )
        flops.append(counter.get_total_flops())
    assert losses[1].equal(losses[2])
    assert not losses[0].equal(losses[1])
    assert flops[1] == flops[2] < 0.54 * flops[0]  # 9 tokens of 17


def test_permuting_images_permutes_scores() -> None:
    model, images = classifier(), labelled().images
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        model.predict(images[order]), model.predict(images)[order], atol=1e-6, rtol=1e-5
    )


def test_encoder_and_head_are_both_trained() -> None:
    model = classifier()
    model(labelled(), problems.random(0)).total.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and name != "encoder.norm.bias":
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name
    weight = model.encoder.patch_embed.proj.weight
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0


@pytest.mark.parametrize("value", [-0.1, 1.0, math.nan])
def test_wrong_smoothing_is_refused(value: float) -> None:
    with pytest.raises(
        SettingsError, match=r"label_smoothing must be (at least 0 and below 1|a finite number)"
    ):
        Classify(label_smoothing=value)


@pytest.mark.parametrize("value", ["some", "-1", "1.5"])
def test_wrong_number_of_trained_blocks_is_refused(value: str) -> None:
    with pytest.raises(
        SettingsError, match="--trained-blocks must be all, half or a number of blocks"
    ):
        Classify(trained_blocks=value)


def test_more_blocks_than_there_are() -> None:
    with pytest.raises(SettingsError, match="cannot train 3 blocks of an encoder with 2"):
        classifier(trained_blocks="3")


HEAD = {"head.linear.weight", "head.linear.bias"}
NORM = {"encoder.norm.weight", "encoder.norm.bias"}
LEARNING = {"0": (), "half": ("1.norm2", "1.mlp"), "1": ("1.",), "2": ("0.", "1.")}


@pytest.mark.parametrize("trained_blocks", LEARNING)
def test_exactly_the_last_blocks_learn(trained_blocks: str) -> None:
    model = classifier(trained_blocks=trained_blocks)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    prefixes = tuple(f"encoder.blocks.{part}" for part in LEARNING[trained_blocks])
    wanted = {n for n, _ in model.named_parameters() if prefixes and n.startswith(prefixes)}
    assert learning == wanted | HEAD | (NORM if trained_blocks != "0" else set())


def test_full_fine_tuning_trains_positions_and_leaves_the_unused_norm() -> None:
    model = classifier(head=MeanHead())
    fixed = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert fixed == NORM


def run(model: Classifier, steps: int = 3, micro_batch: int = 4) -> list[float]:
    """Losses of some steps at a high rate."""
    reports = train(
        model.train(),
        iter([labelled()] * steps),
        LayerwiseAdamW().build(model),
        Planned(steps, lambda step: 0.01),
        first_step=0,
        seed=0,
        device=torch.device("cpu"),
        precision="float32",
        micro_batch=micro_batch,
    )
    return [report.loss.item() for report in reports]


@pytest.mark.parametrize("trained_blocks", ["0", "half", "1"])
def test_what_is_frozen_does_not_move_and_the_rest_does(trained_blocks: str) -> None:
    model = classifier(trained_blocks=trained_blocks, drop_path=0.2)
    before = copy.deepcopy(model.state_dict())
    run(model)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    moved = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    keys = {
        name for name in learning if name.endswith("qkv.bias")
    }  # attention ignores a key's bias
    assert moved <= learning
    assert moved >= learning - keys


@pytest.mark.parametrize(("trained_blocks", "kept"), [("all", 2), ("1", 1), ("half", 1), ("0", 0)])
def test_frozen_blocks_remember_nothing_for_a_backward_pass(trained_blocks: str, kept: int) -> None:
    """Each block's MLP would save its hidden layer."""
    model, saved = classifier(trained_blocks=trained_blocks).train(), []
    hidden = model.encoder.blocks[0].mlp.fc1.out_features

    def note(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        model(labelled(), problems.random(0))
    wide = {t.untyped_storage().data_ptr() for t in saved if t.ndim == 3 and t.shape[-1] == hidden}
    assert len(wide) == kept  # the GELU's input


def test_soft_labels_are_the_mixture_of_losses() -> None:
    model, batch = classifier(label_smoothing=0.1), labelled()
    with torch.no_grad():
        model.head.linear.weight.normal_(generator=problems.random(1))
    other = batch.annotations.flip(0)
    one, two = (
        model(batch._replace(annotations=labels), problems.random(0)).total
        for labels in (batch.annotations, other)
    )
    shares = torch.zeros(4, 5)
    for row, (mine, theirs) in enumerate(zip(batch.annotations, other, strict=True)):
        shares[row, mine] += 0.3
        shares[row, theirs] += 0.7
    mixed = model(batch._replace(annotations=shares), problems.random(0)).total
    assert mixed.item() == pytest.approx(0.3 * one.item() + 0.7 * two.item(), abs=1e-6)


def test_dropped_halves_are_made_up_for_on_average() -> None:
    """And the rate rises in a line: none in the first block."""
    model = classifier(drop_path=0.4).train()
    kept = model._kept(20_000, problems.random(0))
    assert kept is not None
    assert kept.mean((1, 2, 3)).tolist() == pytest.approx([1, 1, 1, 1], abs=0.03)
    shares = (kept == 0).double().mean((1, 2, 3)).tolist()
    assert shares[:2] == [0, 0]
    assert shares[2:] == pytest.approx([0.4, 0.4], abs=0.02)
    assert kept.unique().tolist() == pytest.approx([0, 1, 1 / 0.6])


def test_dropping_is_what_the_equations_say() -> None:
    model, batch = classifier(drop_path=0.5).train(), labelled()
    kept = model._kept(4, problems.random(3))
    encoder = model.encoder
    expected = []
    for row in range(4):
        tokens = encoder.embed(batch.images[row : row + 1])
        for number, block in enumerate(encoder.blocks):
            tokens = tokens + block.attn(block.norm1(tokens), 0) * kept[2 * number, row]
            tokens = tokens + block.mlp(block.norm2(tokens)) * kept[2 * number + 1, row]
        expected.append(tokens)
    ours = model._tokens(encoder, batch.images, None, kept)
    torch.testing.assert_close(ours, torch.cat(expected), atol=1e-5, rtol=1e-5)


def test_nothing_is_dropped_in_evaluation() -> None:
    model, images = classifier(drop_path=0.9).eval(), labelled().images
    assert model.predict(images).equal(classifier().eval().predict(images))


def test_parts_of_a_batch_drop_what_the_whole_drops() -> None:
    """Losses agree but for rounding; the second step shows that gradients do, too."""
    whole, parts = (run(classifier(drop_path=0.5), micro_batch=size) for size in (4, 2))
    assert parts == pytest.approx(whole, abs=1e-4)
    assert run(classifier(), micro_batch=4) != pytest.approx(whole, abs=1e-3)


def test_average_equals_a_loop_and_is_what_is_evaluated() -> None:
    model, decay = classifier(weight_average=0.6), 0.6
    expected = {n: p.detach().clone() for n, p in model.head.named_parameters()}
    for step in range(3):
        with torch.no_grad():
            for parameter in model.head.parameters():
                parameter.add_(step + 1.0)
        model.after_step(Moment(0, 1, 0))
        for name, parameter in model.head.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * parameter.detach()
    _, head = model.evaluated
    for name, value in head.named_parameters():
        torch.testing.assert_close(value, expected[name])
        assert not value.requires_grad
    images = labelled().images
    averaged, current = model.eval().predict(images), model.train().predict(images)
    assert not torch.allclose(averaged, current)
    model.head.load_state_dict(head.state_dict())
    torch.testing.assert_close(model.predict(images), averaged)


def test_without_an_average_the_weights_are_evaluated() -> None:
    model = classifier()
    model.after_step(Moment(0, 1, 0))
    assert model.evaluated == (model.encoder, model.head)
