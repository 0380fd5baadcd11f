"""The database under the tables: SQLite in a file, PostgreSQL by URL, one code for both.

What a call returns has been committed. SQLite runs in WAL mode with synchronous=FULL, so that neither kill -9 nor a power
cut loses what was acknowledged. Writes that come at the same moment share a commit.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sql
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlmodel import Session, select

from papertrial.app.judge.tables import STEPS, VERSION, Table, Version
from papertrial.core.errors import PapertrialError, missing_extra

_TOGETHER = 64  # writes in one transaction
_ALONE = 0x6A75646765  # names the lock of PostgreSQL under which tables are made or changed

_Result = TypeVar("_Result")


class _Line:
    """Writes that wait for each other. Other processes wait for the lock of the database itself."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self.coming: deque[_Wish] = deque()


@dataclass(eq=False)
class _Wish:
    work: Callable[[Session], Any]
    result: Any = None
    error: BaseException | None = None
    done: bool = False


class Database:
    """The tables of papertrial's studies. Safe to use from many threads, and by many processes at once.

    place: a SQLite file, or postgresql://user:password@host/database. `create` makes the tables where there are none.
    Raises PapertrialError when it cannot be opened, is something else, or was written by a newer papertrial.
    """

    def __init__(self, place: str | Path, *, create: bool = False) -> None:
        self.name, self.engine = _engine(str(place), create)
        self._writer = self.engine.execution_options(writes=True)
        self._lines: dict[int, _Line] = {}
        try:
            with self._explained():
                with self.engine.connect() as connection:
                    version = self._version(connection)
                if version is None and not create:
                    raise PapertrialError(f"{self.name} holds no studies by people", "papertrial judge new makes one")
                if version != VERSION:
                    self._bring_up_to_date()
        except BaseException:
            self.close()
            raise

    def _version(self, connection: sql.Connection) -> int | None:
        """The version of the tables, None where there are none. Raises PapertrialError for tables that are not ours."""
        present, wanted = set(sql.inspect(connection).get_table_names()), set(Table.metadata.tables)
        if not wanted & present:
            return None
        told = connection.scalar(select(sql.func.max(Version.number))) if Version.__tablename__ in present else None
        version = told or 0
        if version > VERSION:
            raise PapertrialError(
                f"{self.name} was written by a newer papertrial: its tables have version {version}, this one knows {VERSION}",
                "use that papertrial, or type: pip install --upgrade papertrial",
            )
        if version == VERSION and not wanted <= present:
            raise PapertrialError(
                f"{self.name} lacks the tables {', '.join(sorted(wanted - present))}",
                "put back a copy of it, or name another database",
            )
        return version

    def _bring_up_to_date(self) -> None:
        """Make the tables, or change those of an older version: all of it or nothing, by one process at a time."""
        with self._writer.begin() as connection:
            if connection.dialect.name == "postgresql":  # SQLite lets one alone write
                connection.execute(sql.select(sql.func.pg_advisory_xact_lock(_ALONE)))
            version = self._version(connection)  # another process may have come first
            if version is None:
                Table.metadata.create_all(connection)
            for step in STEPS[VERSION if version is None else version :]:
                step(connection)
            connection.execute(sql.delete(Version))
            connection.execute(sql.insert(Version).values(number=VERSION))
            self._version(connection)  # tables that only look like ours are left as they were

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            why = (
                str(error.orig).strip().splitlines()[0] if error.orig and str(error.orig).strip() else "no reason given"
            )
            raise PapertrialError(
                f"the database {self.name} cannot be used: {why}", "check that it is there, runs, and can be written"
            ) from error
        except SQLAlchemyError as error:
            raise PapertrialError(f"the database {self.name} cannot be used: {error}", "try again") from error

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with self._explained(), Session(self.engine, expire_on_commit=False) as session:
            yield session

    def write(self, study_id: int, work: Callable[[Session], _Result]) -> _Result:
        """`work(session)` in a transaction; returns once it has been committed.

        Whoever's turn it is commits for all that have come to the same study meanwhile: a slow disk is waited for once,
        not once each. A wish that fails takes back what it did alone.
        """
        line = self._lines.setdefault(study_id if self.engine.name == "postgresql" else 0, _Line())
        wish = _Wish(work)
        line.coming.append(wish)
        with line.turn:
            while not wish.done:
                self._grant([line.coming.popleft() for _ in range(min(len(line.coming), _TOGETHER))])
        if wish.error is not None:
            raise wish.error
        return wish.result

    def _grant(self, wishes: Sequence[_Wish]) -> None:
        try:
            with self._explained(), Session(self._writer, expire_on_commit=False) as session, session.begin():
                for wish in wishes:
                    try:
                        with self._explained(), session.begin_nested():
                            wish.result = wish.work(session)
                    except Exception as error:
                        wish.error = error
        except BaseException as error:  # nothing of it is there, so nobody is told that it is
            for wish in wishes:
                wish.error = wish.error or error
            if not isinstance(error, Exception):
                raise
        finally:
            for wish in wishes:
                wish.done = True

    def close(self) -> None:
        self.engine.dispose()


def _engine(place: str, create: bool) -> tuple[str, sql.Engine]:
    """The name to call it by, without a password, and the engine."""
    options = {"pool_size": 48, "max_overflow": 0, "pool_timeout": 60}
    if "://" in place:
        try:
            url = sql.make_url(place)
        except ArgumentError:
            url = None
        if url is None or url.get_backend_name() not in ("postgresql", "postgres"):
            raise PapertrialError(
                f"{place.partition('://')[0]}:// is not a database that can be used",
                "name a file, or postgresql://user:password@host/database",
            )
        name = url.render_as_string(hide_password=True)
        try:
            engine = sql.create_engine(url.set(drivername="postgresql+psycopg"), pool_pre_ping=True, **options)
        except ModuleNotFoundError:
            raise missing_extra("a study in PostgreSQL", "psycopg", "postgres") from None
        return name, engine
    path = Path(place)
    if not create and not path.is_file():
        raise PapertrialError(
            f"{path} is not there", "name the database with --db, or make one with papertrial judge new"
        )
    if path.is_dir() or not path.parent.is_dir():
        raise PapertrialError(f"{path} cannot be a database", "name a file in a folder that is there")
    _require_ours(path)
    engine = sql.create_engine(sql.URL.create("sqlite", database=str(path)), **options)

    @sql.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # this module says when a transaction begins
        for pragma in ("busy_timeout = 60000", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
            connection.execute(f"PRAGMA {pragma}")

    @sql.event.listens_for(engine, "begin")
    def _begin(connection: sql.Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return str(path), engine


def _require_ours(path: Path) -> None:
    """Raise PapertrialError for a SQLite file with tables of something else, before anything in it is changed."""
    if not path.exists() or not path.stat().st_size:
        return
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection,
    ):
        present = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if present and not present & set(Table.metadata.tables):
            raise PapertrialError(
                f"{path} is a database of something else (it holds the table {min(present)})", "name another with --db"
            )
