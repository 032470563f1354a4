"""How fast is it beside others? `python -m tests.bench.side [--quick]`: peers and the sidecar in several dress codes,
in one run, on 127.0.0.1.

    calls.py         what is asked, and what the server says to it
    peers.py         who is measured, and how each is started
    sidecars.py      the sidecar in its dress codes
    sessions.py      peers that are whole MCP servers: FastMCP's proxy, a chain of mcp-proxy
    contextforge.py  and ContextForge
    proving.py       what a peer must pass on and refuse before it counts
    speaker.py       the server behind whole MCP servers: answers each method with a static result
    streamer.py      the server behind streams: events, and then the answer
    wrk.py           the load: calls as fast as they are answered
    offered.py       the load: so many calls a second, whatever becomes of them
    rounds.py        how one situation is measured, several times, peers in turn
    situations.py    what is measured, in which order, and the ratios
    report.py        figures → latest.json and tables
    quote.py         tables → the pages that quote them

The proxy that is measured has a core of its own; load and server share the other one. Both are pinned, and a figure
says whether the proxy's core was the saturated one: else it is a lower bound.
"""
