"""transformers' ViT and ViTMAE, with the parameter names of the files on the Hub.

transformers uses other names in memory than on disk, and transformers 5 saves the decoder's blocks under other names than the
published files. All three are read; the published names are written.
"""

import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from unmask.encoders.layers import NORM_EPSILON
from unmask.errors import DataError, SettingsError
from unmask.formats.compare import (
    Check,
    Outputs,
    Seen,
    features,
    largest_difference,
    mask_ratio,
    outputs,
    trial,
    upright,
)
from unmask.formats.configs import Config
from unmask.formats.describe import Facts, Hints, assembled, refuse_unknown
from unmask.formats.files import TensorFile, save_json, save_safetensors
from unmask.formats.model import ModelSpec, Weights, split
from unmask.formats.names import Table, inverse, translate, without_heads
from unmask.masking import RandomMasking
from unmask.objectives import MAE
from unmask.objectives.decoders import SelfAttentionDecoder
from unmask.patches import patch_grid
from unmask.targets import NormalizedPixels, Pixels

_BLOCK = {
    "norm1": "layernorm_before",
    "attn.query": "attention.attention.query",
    "attn.key": "attention.attention.key",
    "attn.value": "attention.attention.value",
    "attn.proj": "attention.output.dense",
    "norm2": "layernorm_after",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}

NAMES: Table = {
    "encoder.cls_token": "vit.embeddings.cls_token",
    "encoder.pos_embed": "vit.embeddings.position_embeddings",
    "encoder.patch_embed.proj": "vit.embeddings.patch_embeddings.projection",
    "encoder.norm": "vit.layernorm",
    **{f"encoder.blocks.{{n}}.{o}": f"vit.encoder.layer.{{n}}.{t}" for o, t in _BLOCK.items()},
    "decoder.mask_token": "decoder.mask_token",
    **{f"decoder.{n}": f"decoder.decoder_{n}" for n in ("embed", "pos_embed", "norm", "pred")},
    **{f"decoder.blocks.{{n}}.{o}": f"decoder.decoder_layers.{{n}}.{t}" for o, t in _BLOCK.items()},
}

_SPELLINGS = (
    ("decoder.decoder_encoder.layer.", "decoder.decoder_layers."),  # transformers 5's saver
    ("vit.layers.", "vit.encoder.layer."),  # transformers 5 in memory, here and below
    (".attention.q_proj.", ".attention.attention.query."),
    (".attention.k_proj.", ".attention.attention.key."),
    (".attention.v_proj.", ".attention.attention.value."),
    (".attention.o_proj.", ".attention.output.dense."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
)
"""Other names of the same parameters, and the published ones."""

_PARTS = ("attn.query", "attn.key", "attn.value")
_HEADS = ("vit.pooler.", "pooler.", "classifier.")


@dataclass(frozen=True, kw_only=True)
class HuggingFace:
    """A folder for `ViTModel.from_pretrained`, or with a decoder for `ViTMAEForPreTraining.from_pretrained`."""

    def recognizes(self, file: TensorFile) -> bool:
        """Whether there are a ViT's embeddings under transformers' names."""
        return any(
            name.startswith(("vit.embeddings.", "embeddings.patch_embeddings."))
            for name in file.tensors
        )

    def read(self, file: TensorFile, hints: Hints) -> Weights:
        """The encoder, and the decoder if there is one."""
        tensors, notes = without_heads(file.tensors, _HEADS)
        published = {_published(name): tensor for name, tensor in tensors.items()}
        known, unknown = translate(published, inverse(NAMES))
        refuse_unknown(file.path, unknown)
        notes += _config_notes(file)
        encoder, decoder = split(_fused(known))
        return assembled(file, encoder, decoder, _facts(file), hints, tuple(notes))

    def write(self, weights: Weights, folder: Path) -> Path:
        """Write `model.safetensors`, `config.json` and `preprocessor_config.json`."""
        spec = weights.spec
        if weights.decoder and spec.image_size.height != spec.image_size.width:
            raise SettingsError(
                f"transformers' ViTMAE only takes square images, and these weights are for {spec.image_size} pixels; "
                "convert the encoder.safetensors of a checkpoint to get only the encoder"
            )
        tensors, unknown = translate(_split(weights.whole), NAMES)
        # mean and standard deviation go into preprocessor_config.json
        assert unknown.keys() == {"encoder.mean", "encoder.std"}, sorted(unknown)
        if not weights.decoder:
            tensors = {name.removeprefix("vit."): tensor for name, tensor in tensors.items()}
        file = folder / "model.safetensors"
        save_safetensors(file, tensors, spec)
        save_json(folder / "config.json", _config(spec))
        save_json(folder / "preprocessor_config.json", _preprocessor(spec))
        return file

    def check(self, weights: Weights, file: Path) -> Check | None:
        """Load the folder with `from_pretrained` and compare; None without transformers."""
        if find_spec("transformers") is None:
            return None
        import transformers

        version = f"transformers {transformers.__version__}"
        batch = trial(weights.spec)
        if not weights.decoder:
            model = _loaded(transformers.ViTModel, file.parent, add_pooling_layer=False)
            with torch.no_grad():
                theirs = model(batch.pixels).last_hidden_state
            difference = largest_difference([features(weights, batch)], [theirs])
            return Check(version, "features of every token", difference)
        model = _loaded(transformers.ViTMAEForPreTraining, file.parent)
        with torch.no_grad():  # it masks in evaluation too, so it gets our noise
            visible = model.vit(batch.pixels, noise=batch.noise).last_hidden_state
            output = model(batch.pixels, noise=batch.noise)
        theirs = Outputs(visible, output.logits, output.loss)
        difference = largest_difference(outputs(weights, batch), theirs)
        return Check(version, "features, prediction and loss", difference)

    def see(self, weights: Weights, file: Path, picture: Path) -> Seen | None:
        """What transformers' image processor and model make of a picture file, with nothing hidden."""
        if find_spec("transformers") is None:
            return None
        import transformers

        image, size = upright(picture, weights.spec), weights.spec.image_size
        if size.height != size.width:
            image = _cropped(image, weights.spec)
        processor: Any = transformers.AutoImageProcessor.from_pretrained(file.parent)
        pixels = processor(image, return_tensors="pt").pixel_values
        if weights.decoder:
            whole = _loaded(transformers.ViTMAEForPreTraining, file.parent, mask_ratio=0.0)
            grid = patch_grid(size, weights.spec.encoder.patch_size)
            model = partial(whole.vit, noise=torch.arange(float(grid.height * grid.width))[None])
        else:
            model = _loaded(transformers.ViTModel, file.parent, add_pooling_layer=False)
        with torch.no_grad():
            tokens = model(pixels).last_hidden_state
        return Seen(f"transformers {transformers.__version__}", pixels[0], tokens[0])


def _cropped(image: Image.Image, spec: ModelSpec) -> Image.Image:
    """The part of a picture that a model sees that is not for squares, as the model card cuts it."""
    height, width = spec.image_size
    scale = max(height / image.height, width / image.width)
    size = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _published(name: str) -> str:
    """The name on the Hub, with the prefix that a ViTModel without a decoder lacks."""
    if not name.startswith(("vit.", "decoder.")):
        name = f"vit.{name}"
    for other, published in _SPELLINGS:
        name = name.replace(other, published)
    return name


def _split(fused: dict[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value as separate parameters, as in transformers."""
    separate: dict[str, Tensor] = {}
    for name, tensor in fused.items():
        if "attn.qkv" in name:
            parts = [name.replace("attn.qkv", part) for part in _PARTS]
            separate |= zip(parts, tensor.chunk(3), strict=True)
        else:
            separate[name] = tensor
    return separate


def _fused(separate: dict[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value as one parameter, as in timm; the inverse of `_split`."""
    fused = {name: t for name, t in separate.items() if not any(part in name for part in _PARTS)}
    for query in (name for name in separate if "attn.query" in name):
        parts = [query.replace("attn.query", part) for part in _PARTS]
        if all(part in separate for part in parts):
            tensor = torch.cat([separate[part] for part in parts])
            fused[query.replace("attn.query", "attn.qkv")] = tensor
    return fused


_ON_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")  # OWNER/NAME
_CACHED = re.compile(r"models--([\w.-]+?)--([\w.-]+)")


def _config_notes(file: TensorFile) -> list[str]:
    """Notes on settings in which the file differs from our ViT; refuses another activation."""
    config = file.config
    if (activation := config.get("hidden_act", "gelu")) != "gelu":
        raise DataError(
            f"{file.path} was trained with the activation {activation!r}, and unmask only has gelu; with it these weights "
            "would give wrong features"
        )
    epsilon = config.get("layer_norm_eps", NORM_EPSILON)
    if epsilon == NORM_EPSILON:
        return []
    return [
        f"its config.json has layer_norm_eps {epsilon}; unmask uses {NORM_EPSILON}, as MAE's authors did"
    ]


def _facts(file: TensorFile) -> Facts:
    config = Config(file.path.parent / "config.json", file.config)
    preprocessor = Config(file.path.parent / "preprocessor_config.json", file.preprocessor)
    plain = file.config and not file.config.get("norm_pix_loss", False)
    ratio = config.share("mask_ratio")
    return Facts(
        origin=f"transformers weights, {_name_of(file)}",
        num_heads=config.whole_number("num_attention_heads"),
        decoder_heads=config.whole_number("decoder_num_attention_heads"),
        image_size=config.size("image_size"),
        target=Pixels() if plain else NormalizedPixels(),
        # a user's config may hide nothing, to get features
        masking=RandomMasking(ratio=ratio) if ratio and ratio < 1 else RandomMasking(),
        statistics=preprocessor.statistics("image_"),
    )


def _name_of(file: TensorFile) -> str:
    """The name of weights for others to read: on the Hub, or of their file or folder without the rest of a path."""
    place = str(file.config.get("_name_or_path") or file.path.name).replace("\\", "/").rstrip("/")
    if cached := _CACHED.search(place):  # a folder in the cache of huggingface_hub
        return "/".join(cached.groups())
    return place if _ON_HUB.fullmatch(place) else place.rpartition("/")[2]


def _config(spec: ModelSpec) -> dict[str, Any]:
    encoder, size = spec.encoder, spec.image_size
    config = {
        "architectures": ["ViTModel"],
        "model_type": "vit",
        "hidden_size": encoder.embed_dim,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.num_heads,
        "intermediate_size": int(encoder.embed_dim * encoder.mlp_ratio),
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": NORM_EPSILON,
        "qkv_bias": True,
        "image_size": size.height if size.height == size.width else list(size),
        "patch_size": encoder.patch_size,
        "num_channels": spec.channels,
        "dtype": "float32",
    }
    if not isinstance(spec.objective, MAE):
        return config
    decoder = spec.objective.decoder
    assert isinstance(decoder, SelfAttentionDecoder)  # `held_by` leaves out all others
    return config | {
        "architectures": ["ViTMAEForPreTraining"],
        "model_type": "vit_mae",
        "decoder_hidden_size": decoder.embed_dim,
        "decoder_num_hidden_layers": decoder.depth,
        "decoder_num_attention_heads": decoder.num_heads,
        "decoder_intermediate_size": int(decoder.embed_dim * decoder.mlp_ratio),
        "mask_ratio": mask_ratio(spec),
        "norm_pix_loss": isinstance(spec.objective.target, NormalizedPixels),
    }


def _preprocessor(spec: ModelSpec) -> dict[str, Any]:
    """The configuration of an image processor that gives the model what `embed` sees."""
    height, width = spec.image_size
    is_square = height == width  # other shapes are cropped before, see `usage`
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": spec.channels == 3,
        "do_resize": True,
        "size": {"shortest_edge": height} if is_square else {"height": height, "width": width},
        "resample": Image.Resampling.BICUBIC.value,
        "do_center_crop": is_square,
        "crop_size": {"height": height, "width": width},
        "do_rescale": spec.statistics.values == "uint8",
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(spec.statistics.mean),
        "image_std": list(spec.statistics.std),
    }


def _loaded(cls: Any, folder: Path, **options: Any) -> Any:
    """A transformers model from a folder; no parameter may be missing or unexpected."""
    with _quiet():
        model, info = cls.from_pretrained(folder, output_loading_info=True, **options)
    assert not info["missing_keys"] | info["unexpected_keys"], info
    return model.eval()


@contextmanager
def _quiet() -> Generator[None]:
    """Without transformers' progress bars."""
    from transformers.utils import logging

    was_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_enabled:
            logging.enable_progress_bar()
