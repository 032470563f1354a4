"""Is there room at the server? A stage: Permit → `Reply`.

In: a `Permit`. Out: the `Reply` of the next stage, at once or when a place is free, or `Refused` (overloaded) with when
to come back. Keeps who holds a place, who waits for one, and how fast calls may leave; all of it bounded.

    settings.py   what can be configured
    building.py   settings → the two stages
    slots.py      who holds a place and who is next, fairly: pure; ranking.py
    stage.py      a call waits for its place, and holds it until its reply has ended
    turnover.py   how long will it be? pure
    gradient.py   how many places there should be, from how long calls take: pure
    pace.py       calls leave one after another, so many a second
"""
