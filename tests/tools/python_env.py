"""Which Python has the older SDK, or somebody else's server? Environments beside our own, kept in .tools/."""

from pathlib import Path

from proxy.demo.environment import python_environment

TOOLS = Path(__file__).parents[2] / ".tools"
"""Not in version control; `make clean` removes it."""


def mcp1_python() -> Path:
    """An interpreter with the last SDK of the 1.x line; installs it on the first call (about 15 s)."""
    return python_environment(TOOLS, Path(__file__).with_name("mcp1.lock"))


def git_server_python() -> Path:
    """An interpreter with PyPI's mcp-server-git, which runs the machine's `git`."""
    return python_environment(TOOLS, Path(__file__).with_name("git_server.lock"))
