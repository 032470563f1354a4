"""Heard this before? The room that answers a call with what the server said to the same call.

In: a `Permit`, which policy has given to this caller for this call. Out: the `Reply` of the next stage, or one made of
an answer that was kept. It keeps answers, bounded, in memory, in a file or in a store that replicas share.

    settings.py   how much is kept, and where
    key.py        which calls are the same call?
    worth.py      may a call be answered from here, and may an answer be kept, how long, for whom?
    entry.py      one kept answer: its bytes at rest, its age, and how it is told to another caller

These are pure: time is given. What is not certain to be safe is a miss.
"""
