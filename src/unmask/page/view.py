"""How the page makes of a picture what a fine-tuned model sees."""

from typing import Any

from unmask.data.scaled_views import FittedImage, WholeImage
from unmask.data.views import CenterCrop, MarginCrop, SquashedImage
from unmask.errors import SettingsError
from unmask.recipes.finetune import Transfer


def view_of(path: str, recipe: Transfer, kinds: tuple[type, ...]) -> dict[str, Any]:
    """The test view of a recipe, for `viewed` of pixels.js.

    Args:
        path: of the run, for messages.
        recipe: with the view and the size of images.
        kinds: of the views that suit the model's tab, among those below.

    Raises:
        SettingsError: for another view.
    """
    views, size = recipe.test_views, recipe.image_size
    if not isinstance(views, kinds):
        names = [kind.__name__ for kind in kinds]
        raise SettingsError(
            f"{path} was tested with views by {type(views).__name__}, and a page makes {', '.join(names[:-1])} and {names[-1]}; "
            f"use `unmask predict {path} IMAGES`"
        )
    match views:
        case CenterCrop():
            return {"outer": list(size)}
        case MarginCrop():
            return {"outer": list(views.outer(size))}
        case FittedImage():
            return {"fitted": views.side}
        case WholeImage():
            return {"longest": views.longest_side}
        case _:
            assert isinstance(views, SquashedImage)
            return {}
