"""May they? → `Permit`.

In: a `Call` and a `Principal`. Out: a `Permit` with the rule that allowed it, or `Refused`. Keeps nothing.
The only room that makes permits.

    rules.py   the decision, pure
"""
