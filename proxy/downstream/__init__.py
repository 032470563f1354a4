"""The side that faces the client.

In: bytes on sockets. Out: the reply of the hall, byte for byte. Keeps the open connections.
Refuses what HTTP itself says no to: hosts, origins, paths, methods, framing, sizes, slowness.

    settings.py     where we listen, and what we take
    acceptor.py     accepts connections, with TLS or without (tls.py)
    door.py         who answers the next request?
    connection.py   one client connection: deadlines and framing that aiohttp does not enforce
    gate.py         may this HTTP request come in at all? (pure)
    listener.py     request → Call → hall → reply on the wire
    metadata.py     the document about us where callers get tokens for us
"""
