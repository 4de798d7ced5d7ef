"""What do streaming replicas buy me, and what do I lose when the primary dies? A lab and a library.

    import labkit

    p = labkit.ReadScaling.build({"vus": 200, "users": 20_000, "duration_s": 12})
    run = labkit.read_scaling(p)          # drives real servers and returns the recorded run
    labkit.headline(run)                  # a DataFrame; each function's docstring lists columns and units

`open_run("latest")` reads a recorded run, with no server at all. `up` and `down` hold a cluster by hand.
Names are loaded on first use, so that a load generator's process does not import what only draws.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
