"""Frames: a recorded run as tidy tables, one function a table, pure functions of the run.

Latencies are milliseconds, percentiles interpolate linearly (numpy's default, k6's too) over pooled requests and are
never averages of percentiles. A request counts if its answer came inside the measured part of its block, that is
after the warm-up. Latency is that of requests answered rightly; the others are counted as errors.

    headline(run)      one row per workload and arm: requests, rate, latency percentiles, errors
    errors(run)        what went wrong, by SQLSTATE
    rounds(run)        the same for every block: what paired comparisons need
    blocks(run)        one row per block, with what was asked for
    per_second(run)    one row per second of measured time
    ecdf(run)          the distribution of latencies
    resources(run)     what the samples say, counters as rates
    disk_space(run)    what the servers occupied, first and last
    not_measured(run)  what they cannot say, and why
    utilisation(run)   how busy servers, load generator, lab, other programs and connections were
    host_cpu(run)      who used the machine's CPU in each block
    disturbances(run)  that other programs took CPU from the measurement, if they did
    disturbed_blocks   in which blocks
    unaccounted(run)   that it is not known whether they did, if it is not
    littles_law(run)   whether users, throughput and latency fit together
    validity(run)      what makes the measurement worthless, if anything
    reference()        the original report's figures in the shape of headline
"""

from labkit.analysis.frames.diagnosis import littles_law, utilisation, validity, validity_problems
from labkit.analysis.frames.host_cpu import disturbances, disturbed_blocks, host_cpu, unaccounted
from labkit.analysis.frames.original import reference
from labkit.analysis.frames.requests import ecdf, errors, headline, is_open, per_second, rounds
from labkit.analysis.frames.samples import disk_space, not_measured, resources
from labkit.analysis.frames.single_blocks import blocks

__all__ = [
    "blocks",
    "disk_space",
    "disturbances",
    "disturbed_blocks",
    "ecdf",
    "errors",
    "headline",
    "host_cpu",
    "is_open",
    "littles_law",
    "not_measured",
    "per_second",
    "reference",
    "resources",
    "rounds",
    "unaccounted",
    "utilisation",
    "validity",
    "validity_problems",
]
