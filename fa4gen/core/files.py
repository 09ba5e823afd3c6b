"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path


def check_writable(path: Path) -> None:
    """Raise what :func:`write_whole` would, before the work is done.

    Raises:
        OSError: it cannot be written; nothing changed.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    handle, temporary = _beside(path)
    os.close(handle)
    Path(temporary).unlink()


def write_whole(path: Path, content: bytes) -> None:
    """Put ``content`` there, with the rights any new file gets; an older file stays until then.

    Raises:
        OSError: it cannot be written; nothing changed.
    """
    handle, temporary = _beside(path)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _beside(path: Path) -> tuple[int, str]:
    """A new file in the same folder, so that it can take the other's place at once."""
    return tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}-")
