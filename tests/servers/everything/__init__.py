"""A server that has everything the official conformance suite calls for, in every revision the SDK speaks.

It is the upstream of the conformance runs: what it answers directly is what must arrive through the sidecar.
Built on the low-level server of PyPI ``mcp``, which serves the earlier revisions and 2026-07-28 on one path.
The names and the texts of tools, resources and prompts are the suite's own (its scenario texts list them).

    python -m tests.servers.everything --port 0
"""
