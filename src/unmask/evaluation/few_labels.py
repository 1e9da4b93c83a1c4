"""Classification with few labels from raw pixels, a random encoder and a pretrained encoder.

Both encoders get the same linear classifier and the same fine-tuning. The regularisation of linear classifiers is chosen
from the same values on the same held-out training images.
"""

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask.annotations import ClassLabels
from unmask.contracts import Encoder
from unmask.encoders.vit import VisionTransformer
from unmask.evaluation.frozen import train_in_memory
from unmask.randomness import derive, seeded
from unmask.tasks.classifier import Classifier
from unmask.tasks.classify import Classify
from unmask.tasks.heads import LinearHead
from unmask.tasks.logistic import STRENGTHS, logistic_classes
from unmask.training.optimizers import AdamW

LEARNING_RATE = 1e-3
"""Peak of fine-tuning; at 3e-4 and 3e-3 random weights do worse on the digits of `unmask demo`."""

STEPS, BATCH = 300, 32
"""Of fine-tuning: random weights then fit their labelled digits, and twice as many steps do no better (studies/LOG.md)."""


LINEAR, TUNED, RAW = "linear classifier", "fine-tuning", "raw pixels"
"""Names of methods, and of having no encoder."""


class Images(NamedTuple):
    """Labelled images in memory: uint8 [n c h w] and their classes."""

    pixels: Tensor
    labels: Tensor

    def rows(self, chosen: NDArray[np.int64]) -> "Images":
        """The images of some rows."""
        index = torch.from_numpy(chosen)
        return Images(self.pixels[index], self.labels[index])


class Trial(NamedTuple):
    """Images for training, validation and test."""

    few: Images
    validation: Images
    test: Images


class Result(NamedTuple):
    """Accuracy of one method on one trial."""

    method: str
    encoder: str
    labels_per_class: int
    seed: int
    accuracy: float
    """On the test images."""
    training_accuracy: float
    """On the few labelled images that it was trained on."""


def draw_trial(
    train_images: Images, test: Images, labels_per_class: int, validation: int, seed: int
) -> Trial:
    """Draw a few labelled images of each class, and `validation` other training images."""
    random = np.random.default_rng(derive("few", seed, labels_per_class))
    order = random.permutation(len(train_images.labels))
    labels = train_images.labels.numpy()[order]
    few = np.concatenate([order[labels == c][:labels_per_class] for c in np.unique(labels)])
    held_out = order[~np.isin(order, few)][:validation]
    return Trial(train_images.rows(few), train_images.rows(held_out), test)


def compare(
    encoders: dict[str, VisionTransformer], trial: Trial, labels_per_class: int, seed: int
) -> Iterator[Result]:
    """Linear classifiers on pixels and on the features of each encoder, and fine-tuning of each encoder."""

    def result(method: str, encoder: str, accuracy: float, fitted: float) -> Result:
        return Result(method, encoder, labels_per_class, seed, accuracy, fitted)

    yield result(LINEAR, RAW, *_linear(lambda pixels: pixels.flatten(1).float(), trial))
    for name, encoder in encoders.items():
        yield result(LINEAR, name, *_linear(partial(_frozen, encoder), trial))
    for name, encoder in encoders.items():
        classifier = _finetune(encoder, trial.few, seed)
        yield result(TUNED, name, _score(classifier, trial.test), _score(classifier, trial.few))


@torch.inference_mode()
def _frozen(encoder: Encoder, pixels: Tensor) -> Tensor:
    """The concatenated patch tokens. So the classifier sees positions, as with raw pixels."""
    return encoder.encode(pixels).patches.flatten(1).clone()


def _linear(describe: Callable[[Tensor], Tensor], trial: Trial) -> tuple[float, float]:
    """Test and training accuracy of logistic regression, regularised as is best on the validation images."""
    few, validation, test = (describe(images.pixels) for images in trial)

    def accuracy(features: Tensor, images: Images, strength: float) -> float:
        classes = logistic_classes(few, trial.few.labels, features, strength)
        return _accuracy(classes, images.labels)

    best = max(STRENGTHS, key=lambda c: accuracy(validation, trial.validation, c))
    return accuracy(test, trial.test, best), accuracy(few, trial.few, best)


def _finetune(encoder: VisionTransformer, few: Images, seed: int) -> Classifier:
    """A copy of the encoder with a head, both trained on a few images."""
    with seeded("head", seed):
        task = Classify(head=LinearHead())
        names = tuple(map(str, range(int(few.labels.max()) + 1)))
        classifier = task.build(copy.deepcopy(encoder), ClassLabels(names=names))
    assert classifier.encoder.pos_embed is not None
    classifier.encoder.pos_embed.requires_grad_(False)  # as in pretraining
    train_in_memory(
        classifier,
        few.pixels,
        few.labels,
        AdamW(beta2=0.999),
        peak=LEARNING_RATE,
        warmup_steps=STEPS / 10,
        steps=STEPS,
        batch_size=BATCH,
        seed=seed,
    )
    return classifier.eval()


@torch.inference_mode()
def _score(classifier: Classifier, images: Images) -> float:
    return _accuracy(classifier.predict(images.pixels).argmax(1), images.labels)


def _accuracy(predictions: Tensor, labels: Tensor) -> float:
    return (predictions == labels).double().mean().item()
