"""How much? Permit → `Lease`.

In: a `Permit`. Out: a `Lease`, or `Refused` with how much is left and when to come back. Keeps buckets and counters of
verified identities, bounded: a key that still counts is never forgotten, and nobody's flood touches another's.

    building.py        settings → the room as the house uses it
    room.py            permit → lease: asks, counts, settles
    rules.py, keys.py  which limits are meant, at what cost, and whose bucket
    demand.py          the words: what one call asks of one limit, and the answer
    local.py           the decision in this process, over bucket.py (rates) and quota.py (windows); pure
    shared.py          the same decision by a store that replicas share (valkey_*.py, decide.lua)
    words.py           what a caller is told
    continuations.py   who may answer an input_required free of quota
    state_file.py      quotas that survive a restart
"""
