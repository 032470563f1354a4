"""What does it look like when it runs? `mcp-sidecar demo`: the sidecar in front of a real third-party server.

Options in, a table on stdout or a running server out. Keeps the third-party packages in the user's cache,
in an environment of their own (requirements.lock), and no process: nothing outlives the command.
"""

from .start import run

__all__ = ["run"]
