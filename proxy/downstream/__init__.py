"""The side that faces the client.

In: bytes on sockets. Out: the reply of the hall, byte for byte. Keeps the open connections.
Refuses what HTTP itself says no to: hosts, origins, paths, methods, framing, sizes, slowness.

    settings.py     where we listen, and what we take
    connection.py   one client connection: deadlines and framing that aiohttp does not enforce
    gate.py         may this HTTP request come in at all? (pure)
    listener.py     request → Call → hall → reply on the wire
"""
