"""Compare compiled blocks with plain ones; run by a test, without the shape checks, which cannot be traced.

Blocks are traced whole and then run by torch's plain operations, so all must be equal to the bit.
"""

import torch
from reference import problems
from torch import Tensor, nn
from torch._dynamo.utils import counters
from torch.nn.attention import SDPBackend

from unmask.attention import AttentionShape
from unmask.tasks.classify import Classify
from unmask.training.kernels import compile_blocks, preferred

WANTED = {AttentionShape(3, tokens, tokens, 8): [SDPBackend.MATH] for tokens in (5, 17)}
"""An attention kernel for the encoder alone."""


def classifier() -> nn.Module:
    return Classify(drop_path=0.5).build(problems.build_encoder(), classes=3).train()


def results(model: nn.Module) -> list[Tensor]:
    """Losses of batches of two sizes (the last part of a batch may be smaller), and all gradients."""
    losses: list[Tensor] = []
    for count in (4, 3):
        batch = problems.batch_of(problems.pictures(problems.Problem(), count))
        loss = model(batch._replace(labels=batch.labels % 3), problems.random(count)).total
        loss.backward()
        losses.append(loss.detach())
    return losses + [p.grad for p in model.parameters() if p.grad is not None]


def main() -> None:
    torch.set_num_threads(1)
    for build in (problems.build, classifier):
        plain, compiled = build(), build()
        compiled.load_state_dict(plain.state_dict())
        compile_blocks(compiled, backend="eager")
        assert list(compiled.state_dict()) == list(plain.state_dict())
        graphs = counters["stats"]["unique_graphs"]
        with preferred(WANTED):
            pairs = list(zip(results(plain), results(compiled), strict=True))
        assert counters["stats"]["unique_graphs"] > graphs, "nothing was compiled"
        assert len(pairs) > 20
        assert all(torch.equal(one, other) for one, other in pairs)
    print("equal")


if __name__ == "__main__":
    main()
