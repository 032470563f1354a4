"""What happened? → a `Journey` for each call, and the sinks that hear of it.

In: what every room tells the journey. Out: one log line a call, metrics, and whatever other sinks want. Keeps nothing
beyond the call but counts. A sink is a plain function of the finished journey; one that fails harms no call.

    building.py         settings → the room
    journey.py          the record of one call, its attempts, and who hears of them (`Observers`)
    logs.py             one JSON line a call, and lines about the life of the process
    metrics.py          how often, how long, how many: counts of journeys, and of what the rooms count (windows.py)
    families.py         which metrics there are
    labels.py           which names may stand in their labels
    exposition.py       the page that Prometheus reads
    audit.py            who did what: the hook for records that must not be lost
    traces_building.py  settings (traces_settings.py) → traces
    traces.py           to which trace a call belongs, and is it recorded?
    trace_context.py    what callers say of traces, read strictly
    spans.py            what is recorded of a call
    exports.py          how spans leave, and what if nobody takes them
    otlp.py             the exporter for collectors
    control_calls.py    what is recorded of questions to identity providers
"""
