"""How long the runs of a study will take, and how much shorter they must be to fit a budget."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from unmask.data.loader import example_of
from unmask.errors import SettingsError
from unmask.recipes import Recipe, Tokenizing, Transfer
from unmask.runs.feeding import feed_for
from unmask.study.cost import StepCost
from unmask.study.plan import Job, Setting
from unmask.study.study import tokenizer_of
from unmask.training.hardware import find_device
from unmask.training.step_cost import Cost, measure_cost

_FORWARD = 1 / 3  # of a forward and backward pass
_LEAST = 0.01


def expected_seconds(
    every: Sequence[Job], costs: Mapping[str, StepCost], tuning: Cost, setting: Setting
) -> tuple[float, float]:
    """Of what is left: the trainings, which a budget can shorten, and the rest, which it cannot.

    `costs` are of the pretrainings by name, `tuning` that of `tuning_cost`; loading is not counted.
    """
    images, tests = len(setting.labelled.train), len(setting.labelled.test)
    training = rest = 0.0
    tokenizers: dict[Path, float] = {}  # several runs may want one
    for job in every:
        left = job.left()
        if left and job.trained and not (job.folder / "pretrained" / "spec.json").exists():
            training += _learning(costs[job.name], job.recipe, images)
        codes = job.codes
        if left and codes is not None and not codes.trained.spec.exists():
            tokenizers[codes.folder] = _learning(
                costs[tokenizer_of(job.name)], codes.recipe, images
            )
        for asking in left:
            if asking.transfer is None:
                rest += (images + tests) * _FORWARD * tuning.seconds_per_image / len(left)
                continue
            share = 1.0 if asking.labels == "all" else _share(asking.labels, images)
            seen = images * share * asking.transfer.epochs
            training += seen * tuning.seconds_per_image
            training += seen / asking.transfer.batch_size * tuning.seconds_per_update
            rest += tests * _FORWARD * tuning.seconds_per_image
    return training + sum(tokenizers.values()), rest


def _learning(cost: StepCost, recipe: Recipe | Tokenizing, images: int) -> float:
    """Seconds of a training without loading."""
    seen = images * recipe.epochs
    return seen * cost.seconds / cost.batch + seen / recipe.batch_size * cost.update_seconds


def _share(amount: str, images: int) -> float:
    return int(amount[:-1]) / 100 if amount.endswith("%") else int(amount) / images


def tuning_cost(transfer: Transfer, setting: Setting) -> Cost:
    """What a step of fine-tuning costs, measured."""
    labelled, hardware = setting.labelled, setting.hardware
    encoder = transfer.encoder.build(
        transfer.image_size, labelled.train.channels, setting.statistics.tensors()
    )
    classifier = transfer.task.build(encoder, labelled.train.annotations)
    device = find_device(hardware.device)
    feed = feed_for(labelled.train, transfer.views, transfer.image_size, 0, hardware)
    return measure_cost(
        classifier.to(device).train(),
        transfer.optimizer.build(classifier),
        example=example_of(feed, transfer.image_size, device),
        largest=transfer.batch_size,
        device=device,
        precision=hardware.precision,
    )


def fitting_factor(budget: float, training: float, rest: float, kept: Path) -> float:
    """The share of their epochs that trainings may last; what `kept` holds of the same budget stays.

    So the same command goes on with the same runs, whatever the machine's speed today.

    Raises:
        SettingsError: if next to nothing would be left of them.
    """
    if kept.exists():
        known = json.loads(kept.read_text())
        if known["seconds"] == budget:
            return known["epochs"]
    factor = min(1.0, (budget - rest) / training) if training else 1.0
    if factor < _LEAST:
        raise SettingsError(
            f"these runs take about {training + rest:,.0f} s, and a budget of {budget:,.0f} s would leave less than "
            "a hundredth of their epochs; give more with --budget, or fewer runs with --only and --seeds"
        )
    factor = float(f"{factor:.2g}")
    kept.write_text(json.dumps({"seconds": budget, "epochs": factor}) + "\n")
    return factor
