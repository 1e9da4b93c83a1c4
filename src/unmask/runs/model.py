"""The Python entry point: load a pretrained model, embed images and reconstruct them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from unmask.contracts import Size
from unmask.data.band_files import BAND_ENDINGS, BandReading, read_bands
from unmask.data.decode import decode
from unmask.data.in_memory import to_channels
from unmask.data.views import center_crop
from unmask.data.walk import LARGEST_FILE, check_file
from unmask.encoders.vit import VisionTransformer
from unmask.errors import DataError, RunError, SettingsError
from unmask.masking import AnyMasking, draw_masks
from unmask.masking.squares import side_of
from unmask.masks import PatchMask, check_count
from unmask.objectives import AnyObjective
from unmask.randomness import generator
from unmask.runs.pretrain import Pretrain
from unmask.runs.reconstruct import Reconstruction, fitted_size, reconstruct
from unmask.runs.weights import Found, find_weights
from unmask.spec import kind_of
from unmask.targets.pixels import Levels
from unmask.traits import Hiding, Masked, Predicting, Reconstructing

Images = Sequence[str | Path] | Shaped[Tensor, "b c h w"]


class Embedding(NamedTuple):
    """Features of images."""

    cls: Float[Tensor, "b d"]
    """The class token."""
    mean: Float[Tensor, "b d"]
    """The mean of the patch tokens."""
    patches: Float[Tensor, "b n d"]
    """A token for each patch, in row-major order."""


def load(path: Path | str, device: str = "cpu") -> "Model":
    """Load the newest complete checkpoint of a run, or weights in any layout of `formats`.

    Raises:
        RunError: if there are no such weights, or no checkpoint yet.
        DataError: if the weights cannot be used.
    """
    found = find_weights(path)
    built = found.weights.build_objective().to(device).eval() if found.weights.decoder else None
    objective = built if isinstance(built, Reconstructing) else None
    encoder = objective.encoder if objective else found.weights.build_encoder().to(device).eval()
    return Model(found, encoder, objective)


class Model:
    """A pretrained model. `encoder` and `objective` are ordinary torch modules."""

    def __init__(
        self, found: Found, encoder: VisionTransformer, objective: Reconstructing | None
    ) -> None:
        """`objective` is None if the weights are only an encoder."""
        self.spec, self.encoder, self._objective = found.weights.spec, encoder, objective
        self.about, self.run, self.step = found.about, found.run, found.step
        self.damaged, self.notes = list(found.damaged), list(found.weights.notes)

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

    @torch.inference_mode()
    def embed(self, images: Images) -> Embedding:
        """Features of image files, or of a tensor [b c h w] of the type used in training (uint8 or float32).

        Files are resized and cropped to the training size; tensors may have any size that is a multiple
        of the patch size. Nothing is hidden, and the same image always gives the same features. Grey is repeated for a
        colour model, and colour becomes luma for a grey one.
        """
        if len(images) == 0:
            raise SettingsError(
                "there are no images to embed; give files, or a tensor with at least one image"
            )
        if not isinstance(images, Tensor):
            size = self.spec.image_size
            images = torch.stack([center_crop(self.read(path), size) for path in images])
        values = self.spec.statistics.values
        if images.dtype != getattr(torch, values) or images.ndim != 4:
            raise SettingsError(
                f"images must be files or a {values} tensor [b c h w], got {images.dtype} "
                f"of shape {tuple(images.shape)}"
            )
        if images.dtype == torch.uint8 and {images.shape[1], self.spec.channels} == {1, 3}:
            images = to_channels(images, self.spec.channels)
        if images.shape[1] != self.spec.channels:
            raise SettingsError(
                f"this model was trained on {self.spec.channels} channels, got {images.shape[1]}"
            )
        encoded = self.encoder.encode(images.to(self.device))
        return Embedding(encoded.cls.mean(1), encoded.patches.mean(1), encoded.patches)

    def reconstruct(
        self,
        image: str | Path | Shaped[Tensor, "c h w"],
        mask: PatchMask | AnyMasking | Tensor | None = None,
        *,
        seed: int = 0,
        levels: Levels = "neighbors",
    ) -> Reconstruction:
        """Hide parts of an image and rebuild them.

        Args:
            image: a file or pixels; resized to about the training area, keeping its aspect ratio, unless
                `mask` is a `PatchMask` made for it.
            mask: a masking, a `PatchMask`, or pixels [h w] where True is hidden; the masking of the
                pretraining if not given.
            seed: seed of a random masking.
            levels: where mean and deviation of a hidden patch come from, if the target is normalised
                pixels: from its visible neighbours, or from the hidden patch itself (which is cheating).
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

    def fit(self, image: str | Path | Shaped[Tensor, "c h w"]) -> Shaped[Tensor, "c new_h new_w"]:
        """Resize the image to about the training area, keeping its aspect ratio, to a multiple of the mask unit."""
        is_tensor = isinstance(image, Tensor)
        pixels = self.spec.statistics.in_units(image) if is_tensor else self.read(image)
        size = Size(pixels.shape[-2], pixels.shape[-1])
        unit = self.encoder.patch_size * side_of(self.objective.masking)
        return center_crop(pixels, fitted_size(size, self.spec.image_size, unit))

    def mask_for(
        self,
        pixels: Shaped[Tensor, "c h w"],
        mask: PatchMask | AnyMasking | Tensor | None,
        seed: int,
    ) -> PatchMask:
        """The mask for one image: drawn, from painted pixels, or `mask` itself if it is a `PatchMask`."""
        if isinstance(mask, PatchMask):
            return mask
        grid = self.objective.grid_of(pixels[None])
        if isinstance(mask, Tensor):
            return PatchMask(*(part.to(self.device) for part in painted_mask(mask, grid)))
        masking = self.objective.masking if mask is None else mask
        drawn = draw_masks(masking, pixels[None], grid, generator(self.device, "reconstruct", seed))
        return PatchMask(*(part[:1] for part in drawn))

    @property
    def bands(self) -> BandReading | None:
        """How multi-band images were read in training; None if it was not on such images."""
        return self.run.band_reading if self.run else None

    def read(self, path: str | Path) -> Shaped[Tensor, "c h w"]:
        """The pixels of a file, in the form used in training.

        Raises:
            DataError: with the file and the reason.
        """
        try:
            check_file(Path(path), None if Path(path).suffix.lower() == ".npy" else LARGEST_FILE)
            return self.spec.statistics.in_units(self._decoded(Path(path)))
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror})") from None
        except DataError as error:
            raise DataError(f"{path}: {error}") from None

    def _decoded(self, path: Path) -> Shaped[Tensor, "c h w"]:
        values, ending = self.spec.statistics.values, path.suffix.lower()
        many = values == "float32" or self.spec.channels not in (1, 3)
        if self.bands is None and ending != ".npy" and not (many and ending in BAND_ENDINGS):
            return decode(path.read_bytes(), self.spec.channels, self.spec.statistics.levels)
        image = read_bands(path, self.bands or BandReading(), values == "uint8")
        if len(image) != self.spec.channels:
            raise DataError(
                f"has {len(image)} channels, but the model was trained on {self.spec.channels}"
            )
        return image


def painted_mask(painted: Tensor, grid: Size) -> PatchMask:
    """The mask that hides every patch that is at least half painted.

    Raises:
        SettingsError: if that hides nothing or everything.
    """
    share = torch.nn.functional.interpolate(painted[None, None].float(), tuple(grid), mode="area")
    removed = (share >= 0.5).flatten(1)
    check_count(int((~removed).sum()), removed.shape[1])
    return PatchMask.of(removed)
