"""Does this installation do what it promises? `mcp-sidecar doctor`: settings in, findings with their remedies out.

`examine` runs every check at once, each within a few seconds; the checks themselves: `ways` (who can be reached, and
who should not), `trust` (credentials, certificates, clocks), `store`, `places` (files and folders), `machine`. It looks
and asks, and changes nothing: no call of a tool, no session that stays, no file that is left. Keeps nothing. Never
prints a secret.
"""
