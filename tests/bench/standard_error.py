"""Where standard error goes while something is measured in this process: into a file, as in a pod."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def into_a_file() -> Iterator[None]:
    """Descriptor 2 itself, so that whoever writes there past `sys.stderr` is measured too; afterwards it is what it
    was."""
    own = os.dup(2)
    try:
        with tempfile.TemporaryFile() as told:
            os.dup2(told.fileno(), 2)
            yield
    finally:
        os.dup2(own, 2)
        os.close(own)
