"""The request for a new fine-tuning run."""

from dataclasses import replace

from unmask.channels import ChannelStatistics
from unmask.console.finetuning import say_finetuning, say_found
from unmask.console.output import console
from unmask.console.training_command import Common, Request
from unmask.contracts import ImageSource
from unmask.data.few_labels import FewLabels
from unmask.data.statistics import measure
from unmask.errors import SettingsError
from unmask.formats.model import Weights
from unmask.recipes import Transfer
from unmask.runs.finetune import Finetune
from unmask.runs.weights import Found, adapted, shape_of, statistics_for, with_patches_of


def finetuning_request(
    common: Common,
    recipe: Transfer,
    weights: Found | None,
    statistics: ChannelStatistics | None = None,
    labels: FewLabels | None = None,
) -> Request:
    """The request for a new fine-tuning run, of a series if `labels` are given; statistics are measured if they are None.

    Raises:
        SettingsError: if the weights have another shape than the recipe's encoder, which flags may have changed.
    """
    weights = weights and with_patches_of(weights, recipe)
    if weights is not None and not recipe.encoder.fits(weights.weights.spec.encoder):
        raise SettingsError(
            f"the encoder has {shape_of(weights.weights.spec.encoder)}, but the settings ask for "
            f"{shape_of(recipe.encoder)}; leave out --model, --patch-size and the flags that begin with --encoder"
        )
    images = common.images
    job = Finetune(recipe=recipe, annotations=images.train.annotations, init=None, labels=labels)

    def start(statistics: ChannelStatistics) -> tuple[Finetune, Weights | None]:
        if weights is None:
            return job, None
        spec = weights.weights.spec
        step = "" if weights.step is None else f", step {weights.step:,}"
        words = "; ".join([f"{spec.origin}{step}", *adapted(spec, recipe, statistics)])
        console.print(f"weights   {words}")
        return replace(job, init=words), weights.weights

    return Request(
        common=common,
        job=job,
        statistics=lambda: statistics or _statistics(weights, images.train),
        start=start,
        say_images=lambda: say_found(images),
        say_plan=lambda run, module, cost: say_finetuning(run, recipe, module, images, cost),
        learned_before=() if weights is None else weights.learned_from,
    )


def _statistics(weights: Found | None, source: ImageSource) -> ChannelStatistics:
    """Those of the encoder, if the images have the same channels; else measured."""
    own = statistics_for(weights.weights.spec, source) if weights else None
    return own or measure(source)
