"""How fast is it beside others? `python -m tests.bench.side [--quick]`: peers and the sidecar in several dress codes,
in one run, on 127.0.0.1.

    peers.py      who is measured, how each is started, and what it must refuse before it counts
    sessions.py   peers that are whole MCP servers: FastMCP's proxy, a chain of mcp-proxy
    speaker.py    the server behind those: answers each method with a static result
    wrk.py        the load: what is asked, and what came of it
    running.py    the order of rounds
    report.py     figures → ratios, latest.json and a table

The proxy that is measured has a core of its own; load and server share the other one. Both are pinned, and a figure
says whether the proxy's core was the saturated one: else it is a lower bound.
"""
