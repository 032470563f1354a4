"""Is it well? Probes, drain, and the life of the process.

In: the state of the other rooms, through small questions. Out: 200 or 503, and an orderly end. Keeps whether the
house is up and whether it is coming down.

    settings.py   where the probes are asked
    probes.py     /healthz, /readyz, /startupz
    drain.py      finish old, take no new
"""
