"""The images of a run that is resumed: where they are now, and whether they are the same."""

import shlex

from unmask.asked import any_files
from unmask.console.arguments import Peek
from unmask.console.output import console
from unmask.console.typed import as_typed
from unmask.data import AnySource, Digits, Held
from unmask.errors import DataError, typed
from unmask.runs.folder import RunFolder
from unmask.runs.images_of_run import as_begun, other_images, place_of
from unmask.runs.job import Images
from unmask.runs.run import Run


def place_again(command_line: Peek, run: Run, folder: RunFolder) -> AnySource:
    """Where the images of the run are: where DATA and --labels-file say, else where they were last."""
    place = command_line.words[-1] if command_line.words else None
    data = place_of(run, folder, place, command_line.flags.get("labels-file"))
    if len(command_line.words) > 1:
        console.print("the weights come from the run, so ENCODER is not read")
    if data != run.data:
        console.print(f"images are read from {as_typed(data)}, not from {as_typed(run.data)}")
    return data


def images_again(run: Run, folder: RunFolder, data: AnySource, again: str) -> Images:
    """The images of a resumed run, checked to be the same as when it started.

    `again` is the command that starts another run with a change; {run} stands for the folder.

    Raises:
        DataError: if the place does not exist.
        RunError: if the images there are others.
    """
    if not isinstance(data, Digits | Held) and not any_files(data.path):
        raise DataError(
            f"{data.path} does not exist; if the images are elsewhere now, name the place: "
            f"{typed(run.job.command, '--resume', folder.root)} NEWPLACE"
        )
    images = as_begun(run, data)
    if images is None:
        source = run.job.open(data, run.seed).train
        raise other_images(run, folder, source, again.format(run=shlex.quote(str(folder.root))))
    return images
