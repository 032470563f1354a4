"""The side that faces the server: the last stage.

In: a `Permit`. Out: the server's `Reply`, checked, or `Refused`. Keeps connections, and for HTTP+SSE the open
sessions. Foreign exceptions are translated here, at the border that meets them, and nowhere else.

    settings.py            which server, and how it is reached
    origin.py              where it lives, and what stays within
    transport.py           what any transport must do
    transport_aiohttp.py   the one that works everywhere
    forward.py             one permitted call to one reply (streamable HTTP)
    judge.py               is this answer ours?
    catalog.py             what tools/list taught us
    http_sse.py            the same for HTTP+SSE, where answers arrive elsewhere
    probe.py               does it answer at all?
"""
