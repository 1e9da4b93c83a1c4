"""Code for a model card: how to load exported weights in each library, and get the features of a picture.

The picture becomes what `unmask.load(...).embed` sees: upright, resized (bicubic) until it covers the training size, and cropped
in the centre.
"""

import json

from unmask.formats.model import ModelSpec
from unmask.patches import patch_grid

_LIBRARY = {
    "timm": """
model = timm.create_model({folder}, pretrained=True).eval()
{image}
with torch.no_grad():
    features = model({pixels})  # as the model pools: the class token, or the mean of the patches
""",
    "huggingface": """
model = ViTModel.from_pretrained({folder}, add_pooling_layer=False).eval()
{image}
with torch.no_grad():
    tokens = model({pixels}).last_hidden_state
features = tokens[:, 1:].mean(1)  # the mean of the patches; tokens[:, 0] is the class token
""",
    "masked": """
model = ViTMAEForPreTraining.from_pretrained({folder}, mask_ratio=0.0).eval()  # nothing is hidden
{image}
order = torch.arange({patches}.0)[None]  # keeps the patches in order
with torch.no_grad():
    tokens = model.vit({pixels}, noise=order).last_hidden_state
features = tokens[:, 1:].mean(1)  # the mean of the patches; tokens[:, 0] is the class token
""",
}


def takes_pictures(spec: ModelSpec) -> bool:
    """Whether other libraries can read picture files for a model: grey or colour, in bytes."""
    return spec.channels in (1, 3) and spec.statistics.values == "uint8"


def code_for(library: str, folder: str, spec: ModelSpec, *, decoder: bool) -> str:
    """Code that loads weights and computes features of `photo.jpg`, or of an array if the model takes no pictures.

    Args:
        library: public name of a format: unmask, timm or huggingface.
        folder: where the weights are.
        spec: of the model.
        decoder: whether the weights have a decoder that the library reads.
    """
    if library == "unmask":
        return _ours(folder, spec)
    pictures = takes_pictures(spec)
    imports = ["import timm"] if library == "timm" else []
    imports += ["import torch"]
    if pictures:
        imports += ["from PIL import Image, ImageOps"]
    if library == "huggingface":
        classes = ["AutoImageProcessor"] * pictures
        classes += ["ViTMAEForPreTraining" if decoder else "ViTModel"]
        imports += [f"from transformers import {', '.join(classes)}"]
    place = json.dumps(f"local-dir:{folder}" if library == "timm" else folder)
    image, pixels = _picture(library, place, spec) if pictures else _array(spec)
    template = _LIBRARY["masked" if library == "huggingface" and decoder else library]
    height, width = patch_grid(spec.image_size, spec.encoder.patch_size)
    body = template.format(folder=place, image=image, pixels=pixels, patches=height * width)
    return "\n".join(imports) + "\n" + body


def _ours(folder: str, spec: ModelSpec) -> str:
    """unmask reads pictures, and arrays of any number of channels in the units of the data."""
    if takes_pictures(spec):
        image, start = '["photo.jpg"]', "import unmask\n"
    else:
        shape = f"1, {spec.channels}, {spec.image_size.height}, {spec.image_size.width}"
        image = f"torch.zeros({shape}, dtype=torch.{spec.statistics.values})"
        start = "import torch\nimport unmask\n"
    return (
        f"{start}\nmodel = unmask.load({json.dumps(folder)})\n"
        f"features = model.embed({image}).mean  # the mean of the patches; .cls is the class token\n"
    )


def _picture(library: str, place: str, spec: ModelSpec) -> tuple[str, str]:
    """Lines that prepare `photo.jpg`, and what the model is called with."""
    mode = "RGB" if spec.channels == 3 else "L"
    lines = [f'image = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("{mode}")']
    if library == "timm":
        lines.append(
            "prepare = timm.data.create_transform(**timm.data.resolve_model_data_config(model))"
        )
        return "\n".join(lines), "prepare(image)[None]"
    if spec.image_size.height != spec.image_size.width:
        lines.append(_CROP.format(height=spec.image_size.height, width=spec.image_size.width))
    lines.append(f"processor = AutoImageProcessor.from_pretrained({place})")
    lines.append('pixels = processor(image, return_tensors="pt").pixel_values')
    return "\n".join(lines), "pixels"


_CROP = """\
scale = max({height} / image.height, {width} / image.width)
size = max({width}, round(image.width * scale)), max({height}, round(image.height * scale))
image = image.resize(size, Image.Resampling.BICUBIC)
left, top = round((image.width - {width}) / 2), round((image.height - {height}) / 2)
image = image.crop((left, top, left + {width}, top + {height}))"""
"""transformers can crop only squares after resizing the shorter edge, so other shapes are cropped before."""


def _array(spec: ModelSpec) -> tuple[str, str]:
    """Lines that prepare an array in the units of the data, and what the model is called with."""
    size, statistics = spec.image_size, spec.statistics
    values = "pixels" if statistics.values == "float32" else "pixels / 255"
    return (
        f"pixels = torch.zeros({spec.channels}, {size.height}, {size.width})  # yours, in the units of the training data\n"
        f"mean, std = torch.tensor({list(statistics.mean)}), torch.tensor({list(statistics.std)})",
        f"(({values} - mean[:, None, None]) / std[:, None, None])[None]",
    )
