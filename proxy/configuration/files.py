"""What do small files hold? A path in, its bytes out, or Unfit: reading is capped and never waits. Writing replaces."""

import os
import stat
from collections.abc import Callable
from typing import Final

from .mistakes import Unfit

SETTINGS_FILE_BYTES: Final = 1_048_576
REFERENCED_FILE_BYTES: Final = 65_536

ReadFile = Callable[[str, int], bytes]
"""(path, most bytes) → content; raises Unfit."""


def read_bounded(path: str | os.PathLike[str], most_bytes: int) -> bytes:
    """Read a regular file of at most `most_bytes`. Raises Unfit: a directory, a FIFO, a device, too big, …

    The size that the system tells is not trusted (files in /proc say 0): reading stops at the cap.
    """
    try:
        # Looked at before it is opened, because opening some devices does something; O_NONBLOCK, because
        # opening a FIFO waits for its writer, should one be put there between the two calls.
        _check_regular(os.stat(path).st_mode)
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            status = os.fstat(descriptor)
            _check_regular(status.st_mode)
            if status.st_size > most_bytes:
                raise _too_big(most_bytes)
            return _read_all(file.read, most_bytes)
    except Unfit:
        raise
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else "the system refused"
        raise Unfit("cannot be read", why, "check the path and its permissions") from None
    except ValueError:
        raise Unfit("cannot be read", "no path holds such characters", "check the path") from None


def _read_all(read: Callable[[int], bytes | None], most_bytes: int) -> bytes:
    content = b""
    while piece := read(most_bytes + 1 - len(content)):
        content += piece
        if len(content) > most_bytes:
            raise _too_big(most_bytes)
    return content


def _check_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise Unfit("is a directory", "a file is needed", "name the file in it")
    if not stat.S_ISREG(mode):
        raise Unfit("is no regular file", "a device, FIFO or socket may never end", "name a regular file")


def _too_big(most_bytes: int) -> Unfit:
    return Unfit("is too big", f"at most {most_bytes} bytes are read", "is it the right file?")


def replace_file(path: str, content: bytes, *, mode: int = 0o600, beside: str | None = None) -> None:
    """Put the content in the place of the file, whole or not at all. Raises OSError. IO.

    `beside`: where it is written first, in the same folder; a fixed name where only one process writes.
    """
    beside = beside or f"{path}.new"
    # Left by a process that was killed, perhaps with our own number: in containers everybody is 1.
    if os.path.lexists(beside):
        os.unlink(beside)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(beside, flags, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        if os.path.lexists(beside):
            os.unlink(beside)
        raise
    # The rename itself has to survive, too.
    folder = os.open(os.path.dirname(path) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
