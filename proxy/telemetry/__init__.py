"""What happened? → a `Journey` for each call, and the sinks that hear of it.

In: what every room tells the journey. Out: one log line a call, and whatever other sinks want. Keeps nothing
beyond the call. A sink is a plain function of the finished journey; one that fails harms no call.

    building.py  settings → the room
    journey.py   the record of one call, its attempts, and who hears of them (`Observers`)
    logs.py      one JSON line a call, and lines about the life of the process
    audit.py     who did what: the hook for records that must not be lost
"""
