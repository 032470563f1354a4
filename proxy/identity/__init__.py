"""Who is calling, and whose is what they name? → `Principal`.

In: a `Call`. Out: a proven `Principal`, or `Refused`. Keeps the keys of issuers, who was proven lately, failed
attempts, and what the server handed out to whom; all of it bounded.

    settings.py       the authenticators that can be configured
    building.py       settings → the room, with what runs beside it
    room.py           every authenticator in order, one credential a call
    credential.py     what was presented; what an authenticator is
    jwt.py            signed tokens: token.py, key_set.py, keys.py, key_fetch.py, claims.py, verified.py
    api_key.py        keys of a file: keys_file.py, hash_key.py
    introspection.py  opaque tokens: provider.py
    mtls.py           client certificates: spiffe.py
    anonymous.py      everybody without a credential is the same, named principal
    attempts.py       too many bad credentials from one address
    challenges.py     how to get a good one
    ownership.py      sessions, endpoints, tasks, events, questions: exchange.py, owned.py, digests.py
    expiry.py         streams end with the credential they were opened with
"""
