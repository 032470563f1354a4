"""The sidecar, but whatever checks its tokens raises: `python -m tests.corpus.failing_check run --config FILE`.

A fault that no input brings about has to be put in from inside. Only this process has it.
"""

import sys

from proxy.__main__ import main
from proxy.identity.credential import Credential
from proxy.identity.jwt import Jwt
from proxy.model import Principal


class CorpusFault(RuntimeError):
    """What no authenticator expects."""


async def fail(self: Jwt, credential: Credential) -> Principal | None:
    raise CorpusFault


Jwt.__call__ = fail  # type: ignore[method-assign]  # the fault that is the purpose of this program

if __name__ == "__main__":
    sys.exit(main())
