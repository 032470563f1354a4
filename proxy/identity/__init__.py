"""Who is calling? → `Principal`.

In: a `Call`. Out: a proven `Principal`, or `Refused`. Keeps nothing for the anonymous authenticator.

    settings.py    the authenticators that can be configured
    anonymous.py   everybody is the same, named principal
"""
