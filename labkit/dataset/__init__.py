"""The users table: rows that follow from (users, locale, seed) alone, and the way they get into a cluster."""

from labkit.dataset.rows import DatasetSpec, Names, copy_text, ids, names
from labkit.dataset.seeding import SeedReport, seed

__all__ = ["DatasetSpec", "Names", "SeedReport", "copy_text", "ids", "names", "seed"]
