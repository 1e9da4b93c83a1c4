"""Commands of unmask in forks of this process, so that PyTorch is imported once."""

import os
import sys
import traceback
from pathlib import Path

from unmask import cli


def started(words: tuple[str, ...], said: Path) -> int:
    """The process id of a command in a process group of its own; what it prints goes to a file."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.setpgid(0, 0)
        handle = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.argv = ["unmask", *words]
        try:
            cli.main()
            status = 0
        except SystemExit as ended:
            status = int(ended.code or 0)
        except BaseException:
            traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
