"""Files: a path and a text in, a file that is always whole out."""

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Write a text beside `path` and move it there in one step."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.unlink(missing_ok=True)
        with aside.open("x", encoding="utf-8", errors="replace", newline="\n") as file:  # never through a link
            file.write(text)
        aside.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        aside.unlink(missing_ok=True)
