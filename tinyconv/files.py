"""Files that are written completely or not at all."""

import os
from pathlib import Path


def write_whole(path: Path, content: bytes) -> None:
    """Write a file beside `path`, flush it to disk and rename it.

    A process that is killed meanwhile leaves a partial file under another name, see `remove_unfinished`.

    Raises:
        OSError: the file cannot be written; an existing file is not changed.
    """
    import tempfile

    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        _flush_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def remove_unfinished(folder: Path, names: str) -> None:
    """Remove partial files of killed processes in `folder` for names that match the pattern `names`.

    No other process may be writing such a file.
    """
    for unfinished in folder.glob(f".{names}-*"):
        unfinished.unlink()


def _flush_folder(folder: Path) -> None:
    """Flush the renaming to disk, if a folder can be opened for it."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
