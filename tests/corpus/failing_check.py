"""The sidecar, but whatever checks its tokens raises: `python -m tests.corpus.failing_check run --config FILE`.

A fault that no input brings about has to be put in from inside. Only this process has it.
"""

import sys

from proxy.__main__ import main
from proxy.identity import jwt
from proxy.identity.credential import Credential
from proxy.model import Principal


class CorpusFault(RuntimeError):
    """What no authenticator expects."""


class FailingJwt(jwt.Jwt):
    """A class of its own: a compiled one cannot be changed."""

    async def __call__(self, credential: Credential) -> Principal | None:
        raise CorpusFault


jwt.Jwt = FailingJwt  # type: ignore[misc]  # the fault that is the purpose of this program

if __name__ == "__main__":
    sys.exit(main())
