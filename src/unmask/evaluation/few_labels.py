"""Classification with few labels from raw pixels, a random encoder and a pretrained encoder.

Both encoders get the same linear classifier and the same fine-tuning. For all methods, the regularisation or the
learning rate is chosen from the same values on the same held-out training images.
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

LEARNING_RATES = (1e-3, 3e-3)
"""Candidates for the peak learning rate of fine-tuning."""

STEPS = 150
BATCH = 16


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
    """Test accuracy of one method on one trial."""

    method: str
    encoder: str
    labels_per_class: int
    seed: int
    accuracy: float


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
    result = partial(Result, labels_per_class=labels_per_class, seed=seed)
    accuracy = _linear(lambda pixels: pixels.flatten(1).float(), trial)
    yield result("linear classifier", "raw pixels", accuracy=accuracy)
    for name, encoder in encoders.items():
        accuracy = _linear(partial(_frozen, encoder), trial)
        yield result("linear classifier", name, accuracy=accuracy)
    for name, encoder in encoders.items():
        yield result("fine-tuning", name, accuracy=_finetuned(encoder, trial, seed))


@torch.inference_mode()
def _frozen(encoder: Encoder, pixels: Tensor) -> Tensor:
    """The concatenated patch tokens. So the classifier sees positions, as with raw pixels."""
    return encoder.encode(pixels).patches.flatten(1).clone()


def _linear(describe: Callable[[Tensor], Tensor], trial: Trial) -> float:
    """Test accuracy of logistic regression with the regularisation that is best on the validation images."""
    few, validation, test = (describe(images.pixels) for images in trial)

    def accuracy(features: Tensor, images: Images, strength: float) -> float:
        classes = logistic_classes(few, trial.few.labels, features, strength)
        return _accuracy(classes, images.labels)

    best = max(STRENGTHS, key=lambda c: accuracy(validation, trial.validation, c))
    return accuracy(test, trial.test, best)


def _finetuned(encoder: VisionTransformer, trial: Trial, seed: int) -> float:
    """Test accuracy after fine-tuning with the learning rate that is best on the validation images."""
    tuned = (_finetune(encoder, trial.few, rate, seed) for rate in LEARNING_RATES)
    best = max(tuned, key=lambda classifier: _score(classifier, trial.validation))
    return _score(best, trial.test)


def _finetune(encoder: VisionTransformer, few: Images, peak: float, seed: int) -> Classifier:
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
        peak=peak,
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
