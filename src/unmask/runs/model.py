"""The Python entry point: load a pretrained model, embed images and reconstruct them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from numpy.typing import NDArray
from torch import Tensor

from unmask.bar import with_bar
from unmask.contracts import Size
from unmask.cutouts import Cutouts
from unmask.data.band_files import BandReading
from unmask.data.objects import Picture
from unmask.data.views import center_crop
from unmask.encoders.vit import VisionTransformer
from unmask.errors import RunError, listed
from unmask.masking import AnyMasking
from unmask.masking.squares import side_of
from unmask.masks import PatchMask
from unmask.objectives import AnyObjective
from unmask.runs.batches import Images, NamedBatch, Opened, checked, in_batches
from unmask.runs.classifier import Classifier, Guess, load_classifier
from unmask.runs.described import described, described_in_html, facts_of
from unmask.runs.embedding import Embedding, embeddings, together
from unmask.runs.finetune import Finetune, Tuned
from unmask.runs.folder import RunFolder
from unmask.runs.locate import ClassMap, locate
from unmask.runs.pretrain import Pretrain
from unmask.runs.reading import opened_for, read_for
from unmask.runs.reconstruct import Reconstruction, fitted_size, mask_of, reconstruct
from unmask.runs.weights import Found, find_weights
from unmask.spec import kind_of
from unmask.targets.pixels import Levels
from unmask.tasks.detections import Detections
from unmask.traits import Hiding, Masked, Predicting, Reconstructing


def load(path: Path | str, device: str = "cpu") -> "Model":
    """Load the newest complete checkpoint of a run, or weights in any layout of `formats`, or hf:OWNER/NAME on the Hub.

    Raises:
        RunError: if there are no such weights, or no checkpoint yet.
        DataError: if the weights cannot be used, or the Hub has none of this name.
        ResourceError: if the Hub cannot be reached, or its package is missing.
    """
    return model_of(find_weights(path), path, device)


def model_of(found: Found, path: Path | str, device: str = "cpu") -> "Model":
    """The model of weights that were found at a path."""
    built = found.weights.build_objective().to(device).eval() if found.weights.decoder else None
    objective = built if isinstance(built, Reconstructing) else None
    encoder = objective.encoder if objective else found.weights.build_encoder().to(device).eval()
    tuned = RunFolder(path).made_by(Finetune.command)
    return Model(found, encoder, objective, load_classifier(path, device) if tuned else None)


class Model:
    """A pretrained model: called with images it gives a vector of each.

    `encoder` and `objective` are ordinary torch modules. Images are never normalised before: files, pictures and arrays
    are read as in training, and batches hold uint8 or floats in the units of `spec.statistics`, 0 to 1 for pictures.
    """

    def __init__(
        self,
        found: Found,
        encoder: VisionTransformer,
        objective: Reconstructing | None,
        classifier: Classifier | None = None,
    ) -> None:
        """`objective` is None if the weights are only an encoder; `classifier` if the run was not fine-tuned."""
        self.spec, self.encoder, self._objective = found.weights.spec, encoder, objective
        self.about, self.run, self.step = found.about, found.run, found.step
        self.learned_from = found.learned_from
        self.damaged, self.notes = list(found.damaged), list(found.weights.notes)
        self.classifier, self._bands = classifier, found.bands

    def __call__(self, images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b d"]:
        """The vector of each image, the mean of its patch tokens; with gradients where they are enabled."""
        return self.forward_head(self.forward_features(images))

    def forward_features(self, images: Shaped[Tensor, "b c h w"]) -> Float[Tensor, "b t d"]:
        """The class token (or several), then a token for each patch, after the final norm, for a batch of images.

        Raises:
            SettingsError: if it is no such batch.
            DataError: if its values are not as in training.
        """
        return self.encoder(self.checked(images))

    def forward_head(
        self, tokens: Float[Tensor, "b t d"], pool: Literal["mean", "class"] = "mean"
    ) -> Float[Tensor, "b d"]:
        """The vector of each image from its tokens: the mean of the patch tokens, or the class token."""
        count = self.encoder.class_tokens
        return tokens[:, :count].mean(1) if pool == "class" else tokens[:, count:].mean(1)

    @property
    def transform(self) -> Callable[[Any], Shaped[Tensor, "c h w"]]:
        """What prepares an image as in evaluation: read as in training, resized and cropped to the training size.

        It takes a file, a Pillow picture, an array or a tensor, and fits torchvision's data sets: transform=model.transform.
        """
        return self._prepared

    def _prepared(self, image: Any) -> Shaped[Tensor, "c h w"]:
        return center_crop(self.read(image), self.spec.image_size)

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes of a fine-tuned run.

        Raises:
            RunError: for all other weights.
        """
        if self.classifier is None:
            raise RunError(
                f"{self.about} has no classes, because it was not fine-tuned; run unmask.finetune(RUN, FOLDER), and load "
                "the folder that it returns"
            )
        return self.classifier.names

    def predict(
        self, images: Images, *, batch_size: int = 64, progress: bool | None = None
    ) -> list[Guess]:
        """Classes and probabilities of images, by a fine-tuned run; arguments are as in `embed`."""
        outputs = [one for _, one in self.outputs(images, batch_size=batch_size, progress=progress)]
        assert self.classifier is not None
        return [guess for batch in outputs for guess in self.classifier.guesses(batch)]

    @torch.inference_mode()
    def outputs(
        self, images: Images, *, batch_size: int = 64, progress: bool | None = None
    ) -> Iterator[tuple[list[str], Tensor]]:
        """Names and outputs of images, batch by batch, by the task of a fine-tuned run; arguments are as in `embed`.

        Raises:
            RunError: for all other weights.
        """
        tuned = self._tuned("predict")
        recipe = tuned.job.recipe

        def view(image: Any) -> Tensor:
            return recipe.test_views(self.read(image), recipe.image_size)[0]

        for names, batch in self._batches(images, batch_size, view, "predict", progress):
            yield names, tuned.predict(self.checked(batch))

    def detect(self, images: Images, *, tiles: bool = False) -> list[Detections]:
        """The objects in images, by a run that was fine-tuned for detection, in the frame of each picture.

        Args:
            images: as in `embed`; pictures may have any size.
            tiles: whether pictures are looked at in their own resolution, in overlapping tiles.

        Raises:
            RunError: for all other weights.
        """
        found: list[Detections] = self._locate(images, "detect", tiles)
        return [
            one._replace(masks=one.masks.resized(one.masks.size))
            if isinstance(one.masks, Cutouts)
            else one
            for one in found
        ]

    def segment(self, images: Images, *, tiles: bool = False) -> list[ClassMap]:
        """The class of each pixel of images, by a run that was fine-tuned for segmentation; arguments are as in `detect`."""
        return [ClassMap(found, self.classes) for found in self._locate(images, "segment", tiles)]

    def _locate(self, images: Images, method: str, tiles: bool) -> list[Any]:
        tuned = self._tuned(method)
        found: list[Any] = []
        for _, batch in in_batches(self._opened(images), self.spec.channels, self.read, 1).batches:
            found += [locate(tuned, picture, tiles) for picture in self.checked(batch)]
        return found

    def _tuned(self, method: str) -> Tuned:
        """The fine-tuned module, if it is for this method.

        Raises:
            RunError: if it is for another; with its name.
        """
        classifier = self.classifier if self.classes else None
        assert classifier is not None
        right = classifier.tuned.method
        if right != method:
            raise RunError(f"{self.about} was fine-tuned for another task; use .{right}(images)")
        return classifier.tuned

    def __repr__(self) -> str:
        return described(self.about, self._facts())

    def _repr_html_(self) -> str:
        """For notebooks."""
        return described_in_html(self.about, self._facts())

    def _facts(self) -> dict[str, str]:
        use = "decoder", "yes: .reconstruct(image)" if self._objective else "no: .embed(images)"
        if self.classifier is not None:
            names, method = self.classifier.names, self.classifier.tuned.method
            use = "classes", f"{listed(names)}: .{method}(images)"
        return facts_of(self.spec, use, self.device)

    @property
    def objective(self) -> Reconstructing:
        """What the encoder was pretrained with.

        Raises:
            RunError: if these weights are an encoder alone.
        """
        objective = self.objective_spec
        if self.run and not isinstance(objective, Masked):
            why = "which hides and rebuilds nothing, so there is nothing to reconstruct"
            if isinstance(objective, Predicting):
                why = "which guesses each patch from those before it, and has not learnt to fill what a mask hides"
            elif isinstance(objective, Hiding):
                why = "which predicts latents of hidden patches, not pixels, so there is no picture to reconstruct"
            raise RunError(
                f"{self.about} was pretrained with {kind_of(AnyObjective, objective)}, {why}; `unmask evaluate` says "
                "how good it is"
            )
        if self._objective is None:
            raise RunError(
                f"{self.about} is an encoder alone, so it cannot rebuild images; load weights that "
                "hold a decoder too (a run, or model.safetensors)"
            )
        return self._objective

    @property
    def objective_spec(self) -> AnyObjective | None:
        """What the encoder was pretrained with, as far as the weights tell."""
        pretrain = self.run.job if self.run else None
        return pretrain.recipe.objective if isinstance(pretrain, Pretrain) else self.spec.objective

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.encoder.cls_token.device

    def embed(
        self,
        images: Images,
        *,
        batch_size: int = 64,
        patches: bool = True,
        progress: bool | None = None,
    ) -> Embedding:
        """Features of images, a row for each.

        Nothing is hidden, and the same image always gives the same features, bit for bit on one machine. Files, pictures and arrays are resized and
        cropped to the training size; batches of tensors are taken as they are, in any size that is a multiple of the
        patch size. Grey is repeated for a colour model, and colour becomes luma for a grey one.

        Args:
            images: a file, a folder, a Pillow picture, an array [h w] or [h w c], a tensor [c h w] or [b c h w], a list of
                those, a torch Dataset of images or (image, label) pairs, or a DataLoader of batches [b c h w].
            batch_size: how many images are read at a time; features do not depend on it (see `encoders.chunks`).
            patches: whether to keep the token of every patch, too, which takes n times the memory.
            progress: whether to show a bar; on a terminal or in a notebook if not given.

        Raises:
            SettingsError: for anything else.
            DataError: if an image cannot be read.
            ResourceError: if the patch tokens do not fit in memory.
        """
        parts = self.embed_batches(
            images, batch_size=batch_size, patches=patches, progress=progress
        )
        return together(parts)

    def embed_batches(
        self,
        images: Images,
        *,
        batch_size: int = 64,
        patches: bool = True,
        progress: bool | None = None,
    ) -> Iterator[Embedding]:
        """As `embed`, batch by batch, so that memory does not grow with the number of images; on the CPU."""

        batches = self._batches(images, batch_size, self.transform, "embed", progress)
        checked = ((names, self.checked(batch)) for names, batch in batches)
        return embeddings(self.encoder, checked, self.device, patches=patches)

    def _batches(
        self,
        images: Images,
        batch_size: int,
        view: Callable[[Any], Tensor],
        what: str,
        progress: bool | None,
    ) -> Iterator[NamedBatch]:
        found = in_batches(self._opened(images), self.spec.channels, view, batch_size)
        return with_bar(found.batches, found.total, what, progress)

    def _opened(self, images: Images) -> Images | Opened:
        """A folder, pattern or spec with its images opened as in training; all else as it is."""
        return opened_for(images, self.spec, self.bands)

    def checked(self, images: Shaped[Tensor, "b c h w"]) -> Shaped[Tensor, "b new_c h w"]:
        """A batch on the model's device, with its channels.

        Raises:
            SettingsError: if it is no batch of images, or of other values than in training.
            DataError: if floats are not from 0 to 1, for a model of pictures.
        """
        return checked(images, self.spec.channels, self.spec.statistics.values).to(self.device)

    def reconstruct(
        self,
        image: str | Path | Picture,
        mask: PatchMask | AnyMasking | NDArray[Any] | Tensor | None = None,
        *,
        seed: int = 0,
        levels: Levels = "neighbors",
    ) -> Reconstruction:
        """Hide parts of an image and rebuild them.

        Args:
            image: a file, a Pillow picture, an array or a tensor; resized to about the training area, keeping its aspect
                ratio, unless `mask` is a `PatchMask` made for it.
            mask: a masking, a `PatchMask`, or an array that is True where something is hidden: pixels [h w], patches
                [rows columns], or patches in row-major order [n]; the masking of the pretraining if not given.
            seed: seed of a random masking.
            levels: where mean and deviation of a hidden patch come from, if the target is normalised
                pixels: from its visible neighbours, or from the hidden patch itself (which is cheating).

        Raises:
            RunError: if the weights hold no decoder.
            SettingsError: if the mask is something else, or hides nothing or everything.
            DataError: if the image cannot be read.
        """
        if not (isinstance(mask, PatchMask) and isinstance(image, Tensor)):
            image = self.fit(image)
        pixels = image.to(self.device)
        return reconstruct(
            self.objective,
            pixels,
            self.mask_for(pixels, mask, seed),
            levels,
            self.spec.statistics,
        )

    def fit(self, image: str | Path | Picture) -> Shaped[Tensor, "c new_h new_w"]:
        """Resize the image to about the training area, keeping its aspect ratio, to a multiple of the mask unit."""
        pixels = self.read(image)
        size = Size(pixels.shape[-2], pixels.shape[-1])
        unit = self.encoder.patch_size * side_of(self.objective.masking)
        return center_crop(pixels, fitted_size(size, self.spec.image_size, unit))

    def mask_for(
        self,
        pixels: Shaped[Tensor, "c h w"],
        mask: PatchMask | AnyMasking | NDArray[Any] | Tensor | None,
        seed: int,
    ) -> PatchMask:
        """The mask for one image: drawn, from an array, or `mask` itself if it is a `PatchMask`; see `reconstruct`."""
        return mask_of(self.objective, pixels.to(self.device), mask, seed)

    @property
    def bands(self) -> BandReading | None:
        """How multi-band images were read in training; None if it was not on such images."""
        return self._bands

    def read(self, image: str | Path | Picture) -> Shaped[Tensor, "c h w"]:
        """The pixels of a file or of a picture in memory, in the form used in training.

        Raises:
            DataError: with the file and the reason.
        """
        return read_for(image, self.spec, self.bands)
