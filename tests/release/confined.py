"""Runs a command as a container would: another root, which cannot be written, user 65532, no right of any kind.

    python confined.py ROOT COMMAND …

Replaces itself, so whoever started it can stop the command by its process id. Needs root, or user namespaces. A script
of the standard library alone. Sources: capabilities(7), mount_namespaces(7), user_namespaces(7), prctl(2).
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

USER: Final = 65532

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
MS_RDONLY, MS_NOSUID, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 32, 4096, 16384, 1 << 18
PR_CAPBSET_DROP: Final = 24
PR_SET_NO_NEW_PRIVS: Final = 38
LAST_CAPABILITY: Final = 63

_libc = ctypes.CDLL(None, use_errno=True)


def _must(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise SystemExit(f"confined: {what}: {os.strerror(code)}; root or user namespaces are needed")


def main(root: str, command: list[str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    user, group = os.geteuid(), os.getegid()
    if user == 0:
        _must(_libc.unshare(CLONE_NEWNS), "unshare")
    else:
        _must(_libc.unshare(CLONE_NEWNS | CLONE_NEWUSER), "unshare")
        for file, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{USER} {user} 1"),
            ("gid_map", f"{USER} {group} 1"),
        ):
            with open(f"/proc/self/{file}", "w", encoding="ascii") as out:
                out.write(text)
    here = root.encode()
    _must(_libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "mount private")
    _must(_libc.mount(here, here, None, MS_BIND | MS_REC, None), "mount")
    _must(
        _libc.mount(here, here, None, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID, None), "mount read-only"
    )
    os.chroot(root)
    os.chdir("/")
    for capability in range(LAST_CAPABILITY + 1):
        _libc.prctl(
            PR_CAPBSET_DROP, capability, 0, 0, 0
        )  # those the kernel does not have are not there either
    if user == 0:
        os.setgroups([])
        os.setgid(USER)
        os.setuid(USER)
    _must(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no new privileges")
    os.execvpe(command[0], command, environment)  # what of rights is left goes here: the user is not root


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
