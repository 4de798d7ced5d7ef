"""What every workload is: a statement, its parameters, and what a right answer is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
from psycopg import pq

UUID_OID, TEXT_OID, INT8_OID = 2950, 25, 20


COLUMNS = "id, first_name, second_name, birthdate, biography, city"


CHUNK = 1024  # random choices are drawn this many at a time, a fraction of a millisecond


Parameters = list[bytes]


Check = Callable[[pq.abc.PGresult, Parameters], bool]


class Workload(Protocol):
    """One kind of request."""

    @property
    def name(self) -> str: ...

    @property
    def writes(self) -> bool: ...

    @property
    def statement(self) -> str:
        """SQL with $1, $2, …; prepared once on each connection."""
        ...

    @property
    def types(self) -> tuple[int, ...]:
        """The parameters' type OIDs; all are sent in binary format."""
        ...

    def requests(self, rng: np.random.Generator) -> Iterator[Parameters]:
        """Endless parameters, one list per request."""
        ...

    def checker(self) -> Check:
        """A function that says whether an answer (binary format) to these parameters is right."""
        ...
