"""What happened? → a `Journey` for each call, and the sinks that hear of it.

In: what every room tells the journey. Out: one log line a call, metrics, and whatever other sinks want. Keeps nothing
beyond the call but counts. A sink is a plain function of the finished journey; one that fails harms no call.

    building.py         settings → the room
    journey.py          the record of one call, its attempts, and who hears of them (`Observers`)
    logs.py             one JSON line a call, and lines about the life of the process
        call_lines.py       what the line of a call says
        lines.py            how a line looks, whatever strangers wrote into it
        output.py           lines to standard error, for which nobody waits
        channels.py         what Python and its libraries would print, as lines
        debugging.py        the calls of one tenant in detail, for a while
        args_hash.py        a keyed hash of arguments
        request_ids.py      the id by which a client knows its request
    redaction.py        what no sink may hold: known secrets by value, credentials by name
    metrics.py          how often, how long, how many: counts of journeys, and of what the rooms count (windows.py)
        families.py         which metrics there are
        labels.py           which names may stand in their labels
        exposition.py       when the page that Prometheus reads is made; page.py, what it says
    audit.py            who did what: which calls leave a record, and what it says
        audit_settings, audit_building   the section, and the key it names
        audit_stage.py      nothing is sent, and no answer released, before it is written down (sync)
        audit_parts.py      what comes again in records, encoded once
        audit_log.py        the loop's side of the file: who waits; outlives a reload
        audit_scribe.py     the thread that writes: groups, checkpoints, rotation, a disk that fails
        audit_file.py       appending, locking, how a file ended
        audit_chain.py      lines that hold on to each other (pure)
        audit_verifier.py   is a file as it was written? (pure)
        audit_signing.py    the key of checkpoints
        audit_command.py    `mcp-sidecar audit verify` and `keygen`
    traces_building.py  settings (traces_settings.py) → traces
        traces.py           to which trace a call belongs, and is it recorded?
        trace_context.py    what callers say of traces, read strictly
        spans.py            what is recorded of a call
        exports.py          how spans leave, and what if nobody takes them
        otlp.py             the exporter for collectors
        control_calls.py    what is recorded of questions to identity providers
"""
