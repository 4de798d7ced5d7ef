"""What a virtual user asks for: the SQL, its parameters, and what a right answer is.

A workload is a small picklable description. `requests` and `checker` run inside the load generator, so what they
give is made of bytes in PostgreSQL's binary format, and costs about a microsecond per request.
"""

from __future__ import annotations

from labkit.errors import BadInput
from labkit.lab import dataset
from labkit.lab.workloads.base import Workload
from labkit.lab.workloads.get_user import GetUser, GetUserByNumber
from labkit.lab.workloads.search_users import SearchUsers


def workload(name: str, data: dataset.DatasetSpec, *, hit_ratio: float = 0.0) -> Workload:
    """The workload of that name. Raises BadInput."""
    if name == GetUser.name:
        return GetUser(data)
    if name == GetUserByNumber.name:
        return GetUserByNumber(data)
    if name == SearchUsers.name:
        return SearchUsers(data, hit_ratio)
    raise BadInput(f"unknown workload {name!r}")
