"""Bytes to values and back: one reader, one truth.

In: header fields and a body. Out: a `Call`, or a `Refused` that says what is wrong. Keeps nothing.
Pure: no IO, no clock, no chance. What was inspected here is what is forwarded, byte for byte.

    jsonrpc.py   strict JSON and the JSON-RPC envelope
    reading.py   one HTTP request to one Call: era, revision, mirrored headers
    headers.py   hop-by-hop fields, the value coding of Mcp-* headers, media types
    mirrors.py   which header mirrors which argument of a tool
    answers.py   what the server says: whose answer is it, how did it end
    sse.py       server-sent events, split and written
    batch.py     several messages in one body (2025-03-26)
    revisions/   one module per revision, and their register
"""
