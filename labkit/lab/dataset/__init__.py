"""The users table: rows that follow from (users, locale, seed) alone, and the way they get into a cluster."""

from labkit.lab.dataset.rows import DatasetSpec, Names, copy_text, ids, names
from labkit.lab.dataset.seeding import read_once, remove, seed

__all__ = ["DatasetSpec", "Names", "copy_text", "ids", "names", "read_once", "remove", "seed"]
