"""Tables that labkit made carry a comment that says so: on servers that are not labkit's, no other is ever dropped."""

from __future__ import annotations

from psycopg.sql import SQL, Identifier, Literal

from labkit.lab.cluster.sql import Connection

MARK = "made by labkit"
ADOPT_USERS = f"COMMENT ON TABLE users IS '{MARK}'"
"""What an operator runs to say that labkit made a table `users`, where one from before marks did."""


def mark(connection: Connection, table: str, words: str) -> None:
    """Say in a table's comment that labkit made it, and of what."""
    comment = Literal(f"{MARK}: {words}")
    connection.execute(SQL("COMMENT ON TABLE {} IS {}").format(Identifier(table), comment))


def is_marked(connection: Connection, table: str) -> bool | None:
    """Whether labkit made a table; None if there is no such table."""
    asked = "SELECT oid IS NOT NULL, obj_description(oid, 'pg_class') FROM to_regclass(%s) AS oid"
    row = connection.execute(asked, [table]).fetchone()
    assert row is not None
    there, comment = row
    return (comment or "").startswith(MARK) if there else None
