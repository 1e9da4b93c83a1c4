"""Compare compiled parts with plain ones; run by a test, without the shape checks, which cannot be traced.

They are traced whole and then run by torch's plain operations, so all must be equal to the bit.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import get_args

import torch
from reference import problems
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn.attention import SDPBackend

from unmask.annotations import ObjectLabels, Objects
from unmask.attention import AttentionShape
from unmask.contracts import Batch
from unmask.encoders.vit import BeitBlocks, ViT
from unmask.objectives.decoders import CrossAttentionDecoder, LinearDecoder, SelfAttentionDecoder
from unmask.objectives.mae import MAE, Replaced, Visible
from unmask.targets import AnyTarget, DalleCodes, TokenizerCodes
from unmask.tasks.classify import Classify
from unmask.tasks.detect import Detect
from unmask.training.kernels import compile_parts, preferred

WANTED = {AttentionShape(3, tokens, tokens, 8): [SDPBackend.MATH] for tokens in (5, 17)}
"""An attention kernel for the encoder alone."""

UNREAD = {
    TokenizerCodes: TokenizerCodes(path="none"),
    DalleCodes: DalleCodes(path="none", codes=16, width=4, depth=1),
}
TARGETS = [UNREAD.get(kind) or kind() for kind, *_ in map(get_args, get_args(AnyTarget))]
SMALL = SelfAttentionDecoder(embed_dim=16, depth=2, num_heads=2)
ENCODINGS = [
    MAE(encoding=Visible(), decoder=replace(SMALL, depth=1)),
    MAE(encoding=Visible(), decoder=CrossAttentionDecoder(embed_dim=16, depth=2, num_heads=2)),
    MAE(encoding=Replaced(), decoder=SMALL),
    MAE(encoding=Replaced(), decoder=LinearDecoder()),
]


def classifier() -> nn.Module:
    return Classify(drop_path=0.5).build(problems.build_encoder(), problems.classes(3)).train()


def beit() -> nn.Module:
    spec = ViT(patch_size=4, embed_dim=24, depth=2, num_heads=3, blocks=BeitBlocks())
    encoder = spec.build(problems.Problem().size, 3, problems.statistics(3))
    return ENCODINGS[-1].build(encoder)


def detector() -> nn.Module:
    """Ten blocks, most of them within windows, with relative positions."""
    spec = ViT(patch_size=4, embed_dim=24, depth=10, num_heads=3)
    encoder = spec.build(problems.Problem().size, 3, problems.statistics(3))
    task = Detect(window=3, positions="relative", drop_path=0.2, channels=8, sampled=8)
    return task.build(encoder, ObjectLabels(names=("a", "b"), masks=True)).train()


def detected(model: nn.Module, sizes: Sequence[int], as_floats: bool) -> list[Tensor]:
    """Losses of batches with an object in each picture, and all gradients."""
    losses: list[Tensor] = []
    for count in sizes:
        images = problems.pictures(problems.Problem(), count)
        mask = torch.zeros(1, *images.shape[2:], dtype=torch.bool)
        mask[:, 3:12, 2:14] = True
        one = Objects(torch.tensor([[2.0, 3.0, 14.0, 12.0]]), torch.tensor([1]), mask)
        batch = Batch((images,), (one,) * count, torch.arange(count), 0)
        loss = model(batch, problems.random(count)).total
        loss.backward()
        losses.append(loss.detach())
    return losses + [p.grad for p in model.parameters() if p.grad is not None]


def results(model: nn.Module, sizes: Sequence[int], as_floats: bool) -> list[Tensor]:
    """Losses of batches of these sizes, and all gradients."""
    losses: list[Tensor] = []
    for count in sizes:
        images = problems.pictures(problems.Problem(), count)
        if as_floats:
            images = images / 255
            images[0, :, :4, :4] = torch.nan
        batch = problems.batch_of(images)
        loss = model(
            batch._replace(annotations=batch.annotations % 3), problems.random(count)
        ).total
        loss.backward()
        losses.append(loss.detach())
    return losses + [p.grad for p in model.parameters() if p.grad is not None]


def compare(
    build: Callable[[], nn.Module],
    sizes: Sequence[int] = (4,),
    as_floats: bool = False,
    results: Callable[[nn.Module, Sequence[int], bool], list[Tensor]] = results,
) -> None:
    plain, compiled = build(), build()
    compiled.load_state_dict(plain.state_dict())
    compile_parts(compiled, backend="eager")
    assert list(compiled.state_dict()) == list(plain.state_dict())
    with preferred(WANTED):
        one, other = (results(model, sizes, as_floats) for model in (plain, compiled))
    assert len(one) > 20
    assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


def main() -> None:
    torch.set_num_threads(1)
    for build in (problems.build, classifier, beit):
        compare(build, sizes=(4, 3))  # the last part of a batch may be smaller
    for target in TARGETS:
        compare(partial(problems.build, target=target), as_floats=True)
    for spec in ENCODINGS:
        compare(lambda spec=spec: spec.build(problems.build_encoder()))
    assert counters["stats"]["unique_graphs"] > 40, "hardly anything was compiled"
    torch.compiler.reset()
    counters.clear()
    compare(detector, sizes=(2,), results=detected)
    # within windows, global, and the halves after them: blocks share code
    assert 2 <= counters["stats"]["unique_graphs"] < 10, "each block was compiled by itself"
    print("equal")


if __name__ == "__main__":
    main()
