"""Is it well? Probes, drain, and the life of the process.

In: the state of the other rooms, through small questions. Out: 200 or 503, and an orderly end. Keeps whether the
house is up and whether it is coming down.

    settings.py     where the probes are asked
    probes.py       /healthz, /readyz, /startupz
    healthcheck.py  asks them
    drain.py        finish old, take no new
    background.py   what runs beside the calls
    watch.py        which files have changed?
    survivors.py    what outlives a reload of the settings
    reloads.py      is what the settings say in force?
    guards.py       what keeps the process alive, built from
                    loop_lag.py, loop_watch.py    how late is the loop, and where does it stand?
                    memory.py, cgroup.py          is memory running out?
                    descriptors.py                are there file descriptors left?
"""
