"""Records of run.json, whole ones, in which a test changes what it is about."""

from __future__ import annotations

from typing import Any

from labkit.run.schema import Host, HostCpu, LoadBlock, RowCounts, Sampling, Server, TrialBlock

COUNTS = {"kept": 3, "lost": 0, "recovered": 0, "gone": 0}
COUNTS |= {"contradicted": 0, "refused": 0, "duplicated": 0, "unexpected": 0}


def a_load(**facts: Any) -> LoadBlock:
    """One load of a second on the primary."""
    whole: dict[str, Any] = {"block": 0, "workload": "get-user", "arm": "primary-only", "round": 0}
    whole |= {"from_ns": 0, "warm_until_ns": 0, "to_ns": 1_000_000_000, "requests": 0, "measured": 0}
    whole |= {"generator_cpu_percent": 40.0, "pool_busy_fraction": 0.5, "nodes": ["pg1"], "connections": {"pg1": 4}}
    return LoadBlock(**whole | facts)


def a_trial(**facts: Any) -> TrialBlock:
    """One failover in which nothing was lost."""
    whole: dict[str, Any] = {"block": 0, "mode": "ANY 1", "level": "on", "fault": "kill", "seed": 1}
    whole |= {"old": "pg1", "new": "pg2", "decision": [], "choices": {}, "overridden": [], "times": {}}
    whole |= {"fault_ns": 100, "promoted_ns": 200, "from_ns": 0, "to_ns": 300, "cut_off": 0, "sqlstates": {}}
    whole |= {"problems": {}, "read_ns": 400, "views": ["promoted"], "verdict": "true", "reason": "all 3 are there"}
    whole |= {"transactions": {"ok": 3}, "last_before_ns": 90, "first_after_ns": 210, "rto_ms": 0.00012}
    whole |= {"rate_per_s": 3e7, "commit_p50_ms": 1e-6, "commit_p99_ms": 1e-6, "counts": RowCounts(**COUNTS)}
    return TrialBlock(**whole | facts)


def a_host() -> Host:
    return Host(cores=2, memory_bytes=8 << 30, cpu="test", os="Linux")


def a_host_cpu(**parts: Any) -> HostCpu:
    """Two cores of which a quarter is left; no other program uses any."""
    whole: dict[str, Any] = {"cores": 2, "servers": {"pg1": 0.8, "pg2": 0.05, "pg3": 0.05}, "generator": 0.5}
    return HostCpu(**whole | {"lab": 0.1, "others": 0.0, "idle": 0.5, "stolen": 0.0} | parts)


def a_server(name: str, role: str = "replica") -> Server:
    return Server(name=name, role=role, settings={"shared_buffers": "128MB"})


def a_sampling(cost_fraction: float = 0.004) -> Sampling:
    return Sampling(interval_s=0.5, ticks=10, missed=0, rows=100, cpu_s=0.02, cost_fraction=cost_fraction)
