"""Whole training steps of several recipes beside the first: forward, backward, fused AdamW, in turns.

    python benchmarks/fast.py mae-b16 fast-b16 fast4-b16 --batch 8 --rounds 5

One thread, processor time, so that other work on the machine counts little; the first round is not counted.
"""

import argparse
import statistics
from collections.abc import Callable
from time import process_time

import torch

from unmask.channels import Statistics
from unmask.contracts import Batch
from unmask.recipes import find_recipe


def stepper(name: str, batch: int) -> Callable[[], float]:
    """A function that takes one step of a recipe on random images, and gives its seconds."""
    recipe = find_recipe(name)
    moments = Statistics(torch.full((3,), 0.5), torch.full((3,), 0.25))
    encoder = recipe.encoder.build(recipe.image_size, 3, moments)
    model = recipe.objective.build(encoder).train()
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-9, fused=True)
    images = torch.randint(256, (batch, 3, *recipe.image_size), dtype=torch.uint8)
    numbers = torch.arange(batch)
    random = torch.Generator().manual_seed(1)

    def step() -> float:
        started = process_time()
        model(Batch((images,), numbers, numbers, 0), random).total.backward()
        optimizer.step()
        optimizer.zero_grad()
        return process_time() - started

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("recipes", nargs="+", help="the others are compared with the first")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    steps = {name: stepper(name, args.batch) for name in args.recipes}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(args.rounds + 1):
        for name, step in steps.items():
            seconds[name].append(step())
    first = statistics.median(seconds[args.recipes[0]][1:])
    for name, times in seconds.items():
        middle = statistics.median(times[1:])
        print(f"{name}: {middle:.3f} s a step, {middle / first:.3f} of {args.recipes[0]}")


if __name__ == "__main__":
    main()
