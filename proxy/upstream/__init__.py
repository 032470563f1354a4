"""The side that faces the server: the last stage.

In: a `Permit`. Out: the server's `Reply`, checked, or `Refused`. Keeps connections, and for HTTP+SSE the open
sessions. Foreign exceptions are translated here, at the border that meets them, and nowhere else.

    settings.py            which server, and how it is reached
    origin.py              where it lives, and what stays within
    transport.py           what any transport must do
    choosing.py            which transport is used
    transport_aiohttp.py   the one that works everywhere
    transport_lean.py      the one for plain HTTP on this machine (lean_connection.py: a socket; idle.py: which is next)
    credentials.py         what is added to requests, and what of a client's stops here
    own_credential.py      a stage: what the server says of our credential is not for its callers
    oauth.py               the server's own OAuth, seen at our address (challenge.py, public_view.py)
    forward.py             one permitted call to one reply (streamable HTTP)
    outgoing.py            which header fields a call goes out with (fields.py: and how they are written)
    passing.py             which header fields of an answer pass
    judge.py               is this answer ours? (ears.py: who listens; progress.py: whose progress it is)
    carrying.py            what an attempt says in the message it sends
    cancelling.py          the word that a call is over
    catalog.py             what tools/list taught us
    http_sse.py            the same for HTTP+SSE, where answers arrive elsewhere
    probe.py               does it answer at all?
"""
