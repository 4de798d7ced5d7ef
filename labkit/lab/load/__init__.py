"""The load generators: one event loop over libpq in each process, and what it records."""
