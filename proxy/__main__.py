"""The command line. Imports what a command needs when it is asked for, and nothing before.

`healthcheck` runs every few seconds as an exec probe: it answers before argparse is even imported.
"""

import sys


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 clean, 2 bad configuration or usage, 1 else."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["healthcheck"]:
        from .lifecycle.healthcheck import healthcheck

        return healthcheck(words[1:])
    from .commands import run_command

    return run_command(words)


if __name__ == "__main__":
    sys.exit(main())
