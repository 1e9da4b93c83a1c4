"""The expected time of a study's runs, and the factor that shortens them to fit a budget."""

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

_FORWARD = 1 / 3  # time of a forward pass relative to a forward and backward pass
_LEAST = 0.01  # share of the epochs


def expected_seconds(
    every: Sequence[Job], costs: Mapping[str, StepCost], tuning: Cost, setting: Setting
) -> tuple[float, float]:
    """Seconds of the remaining trainings, which a budget can shorten, and of the evaluations, which it cannot.

    `costs` has the pretrainings by name, `tuning` is from `tuning_cost`. Loading is not included.
    """
    images, tests = len(setting.labelled.train), len(setting.labelled.test)
    training = evaluation = 0.0
    tokenizers: dict[Path, float] = {}  # several runs may share one
    for job in every:
        remaining = job.left()
        if remaining and job.trained and not (job.folder / "pretrained" / "spec.json").exists():
            training += _training_seconds(costs[job.name], job.recipe, images)
        codes = job.codes
        if remaining and codes is not None and not codes.trained.spec.exists():
            tokenizers[codes.folder] = _training_seconds(
                costs[tokenizer_of(job.name)], codes.recipe, images
            )
        for measurement in remaining:
            transfer = measurement.transfer
            if transfer is None:
                forward = (images + tests) * _FORWARD * tuning.seconds_per_image
                evaluation += forward / len(remaining)
                continue
            share = 1.0 if measurement.labels == "all" else _share(measurement.labels, images)
            seen = images * share * transfer.epochs
            training += seen * tuning.seconds_per_image
            training += seen / transfer.batch_size * tuning.seconds_per_update
            evaluation += tests * _FORWARD * tuning.seconds_per_image
    return training + sum(tokenizers.values()), evaluation


def _training_seconds(cost: StepCost, recipe: Recipe | Tokenizing, images: int) -> float:
    """Seconds of a training without loading."""
    seen = images * recipe.epochs
    return seen * cost.seconds / cost.batch + seen / recipe.batch_size * cost.update_seconds


def _share(amount: str, images: int) -> float:
    return int(amount[:-1]) / 100 if amount.endswith("%") else int(amount) / images


def tuning_cost(transfer: Transfer, setting: Setting) -> Cost:
    """The measured cost of a step of fine-tuning."""
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


def fitting_factor(budget: float, training: float, evaluation: float, file: Path) -> float:
    """The factor on the epochs of all trainings that fits the budget, in seconds.

    If `file` has a factor for the same budget, it is used. So a resumed study continues with the same runs, even if the
    machine is faster or slower now.

    Raises:
        SettingsError: if less than a hundredth of the epochs would be left.
    """
    if file.exists():
        saved = json.loads(file.read_text())
        if saved["seconds"] == budget:
            return saved["epochs"]
    factor = min(1.0, (budget - evaluation) / training) if training else 1.0
    if factor < _LEAST:
        raise SettingsError(
            f"these runs take about {training + evaluation:,.0f} s, and a budget of {budget:,.0f} s leaves less than "
            "a hundredth of their epochs; use a larger --budget, or fewer runs with --only and --seeds"
        )
    factor = float(f"{factor:.2g}")
    file.write_text(json.dumps({"seconds": budget, "epochs": factor}) + "\n")
    return factor
