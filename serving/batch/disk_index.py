"""Names with a number each, on disk, so that a million of them take no memory."""

from __future__ import annotations

import hashlib
import sqlite3


class DiskIndex:
    """Remembers the first number given to each name; gone when it is closed.

    One thread at a time may use it, not always the same one.
    """

    def __init__(self) -> None:
        # An empty name is SQLite's for a temporary file, which spills from a cache of 2 MB.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute(
            "CREATE TABLE names (name BLOB PRIMARY KEY, number INTEGER) WITHOUT ROWID"
        )

    def __len__(self) -> int:
        return int(self._database.execute("SELECT count(*) FROM names").fetchone()[0])

    def get(self, name: str) -> int | None:
        """The number of a name that has one."""
        query = "SELECT number FROM names WHERE name = ?"
        found = self._database.execute(query, (_digest(name),)).fetchone()
        return None if found is None else int(found[0])

    def add(self, name: str, number: int) -> int | None:
        """Give a name its number; the one it has already is kept and returned."""
        command = "INSERT OR IGNORE INTO names VALUES (?, ?)"
        if self._database.execute(command, (_digest(name), number)).rowcount:
            return None
        return self.get(name)

    def close(self) -> None:
        """Free the file."""
        self._database.close()


def _digest(name: str) -> bytes:
    # JSON strings may hold lone surrogates, which UTF-8 refuses.
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()
