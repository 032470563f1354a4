"""What does a call cost, and what does an idle client weigh? Numbers on one machine, never asserted.

`python -m tests.bench [--quick]` starts each program as a process of its own on 127.0.0.1, prints a table and
writes out/bench/latest.json. Budgets are judged as ratios within one run: clocks of two machines do not compare.

    messages.py      the bytes that are sent: one tools/call of 1 KB, one GET that listens
    wire.py          where an answer ends
    speaking.py      what servers behind have in common: whole requests, one after the other
    responder.py     the server behind: a static answer with the caller's id, a stream that stays silent
    pass_through.py  the least that aiohttp can do between two sockets, to compare with
    load.py          the caller: closed loop, one call under way on each connection
    holder.py        the idle crowd: open streams or kept connections
    processes.py     starts them all; memory and CPU time of a process
    scenarios.py     what is measured, step by step
    report.py        figures, their aims, the table
"""
