"""Interface of a database to the job store: transactions, and the few places where the two dialects of SQL differ."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

Row = Mapping[str, Any]

_TOKEN = re.compile(r"\$(\w+)|(?<![\w:]):(\w+)")


@dataclass(frozen=True, slots=True)
class Dialect:
    """A dialect of SQL. Statements are written with ``$token`` where they differ, and ``:name`` for parameters.

    ``$in_names`` stands for the test that a value is one of the list ``:names``.
    """

    tokens: Mapping[str, str]
    list_test: str
    parameter: str
    _rendered: dict[str, str] = field(default_factory=dict)

    def render(self, statement: str) -> str:
        """Return ``statement`` in this dialect."""
        if statement not in self._rendered:
            self._rendered[statement] = _TOKEN.sub(self._replacement, statement)
        return self._rendered[statement]

    def _replacement(self, found: re.Match[str]) -> str:
        token, name = found.groups()
        if name is not None:
            return self.parameter.format(name)
        if token.startswith("in_"):
            return self.list_test.format(self.parameter.format(token.removeprefix("in_")))
        return self.tokens[token]


class Session(Protocol):
    """An open transaction."""

    def rows(self, statement: str, /, **parameters: Any) -> Sequence[Row]:
        """Execute a statement and return its rows."""
        ...

    def execute(self, statement: str, /, **parameters: Any) -> int:
        """Execute a statement and return the number of rows that it changed."""
        ...

    def now(self) -> float:
        """Return the time of the transaction by the database's clock: seconds since the epoch."""
        ...


class Database(Protocol):
    """A database that holds one job table."""

    def read(self, work: Callable[[Session], T]) -> T:
        """Return the result of ``work``, all of whose queries see one state. Raises: TableUnavailable."""
        ...

    def write(self, work: Callable[[Session], T], *, durable: bool = True) -> T:
        """Return the result of ``work`` after its changes are committed; it may be called again after a conflict.

        If it raises, nothing is changed. A commit that is not ``durable`` may be undone by a crash of the machine.

        Raises: TableUnavailable.
        """
        ...

    def subscribe(self, listener: Callable[[], object]) -> Callable[[], None]:
        """Call ``listener`` from any thread soon after any process's commit; return a function that ends it."""
        ...

    def close(self) -> None:
        """Close all connections."""
        ...
