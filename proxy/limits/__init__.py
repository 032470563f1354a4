"""How much? Permit → `Lease`.

In: a `Permit`. Out: a `Lease`, or `Refused` with how much is left and when to come back. Keeps buckets and counters of
verified identities, bounded: a key that still counts is never forgotten, and nobody's flood touches another's.

    demand.py   the words: what one call asks of one limit, and the answer
"""
