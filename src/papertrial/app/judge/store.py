"""What a study by people keeps, and the rules by which its items go round: SQLite in a file, PostgreSQL by URL.

One code for both. A write locks the row of its study first, so that the writes of one study come one after another:
an item gets no more labels than asked for, whoever asks at the same moment. What a call returns has been committed;
SQLite runs in WAL mode with synchronous=FULL, so that neither kill -9 nor a power cut loses an acknowledged judgement.

    study       its template, how many labels an item gets, when an assignment lapses
    item        what outputs are about: its name and the fields that are shown beside them
    output      what one system made of an item: a text or a picture
    unit        what is judged in one go: one output, or two of one item; an attention check has known answers
    rater       a name and the hash of an invitation's token
    assignment  a unit given to a rater, the side each output is shown on, and until when
    judgement   one answer to one question. Only ever added; undoing marks it

Tokens are 256 random bits and are kept as SHA-256 alone: who reads the database cannot enter with it. The tables have a
version: a database of an older papertrial is brought up to date when it is opened, one of a newer papertrial is refused.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import secrets
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sql
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.orm import registry
from sqlmodel import Field, Session, SQLModel, col, select

from papertrial.app.judge.outputs import Entry, Material
from papertrial.core.errors import PapertrialError, did_you_mean, missing_extra
from papertrial.core.judgement import Check, Judgements, Preference, Question, Rating, Scale, Template

LARGEST_ID = 2**31 - 1  # of a PostgreSQL integer
_TOGETHER = 64  # writes in one transaction
_APART = 1_000_003  # of the draws of two raters
_ALONE = 0x6A75646765  # names the lock of PostgreSQL under which tables are made or changed

_Result = TypeVar("_Result")


class _Table(SQLModel, registry=registry()):
    """Tables of papertrial's own, apart from those of other packages in the same process."""


class Study(_Table, table=True):
    __tablename__ = "judge_study"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    asked: dict[str, Any] = Field(sa_type=sql.JSON)  # the template
    state: str = "open"  # open, paused: nothing new is given out, closed: nothing is taken either
    labels: int  # of each unit
    units: int  # without the checks
    share: int  # units that one rater is asked for
    minutes: float  # until an assignment may go to someone else
    check_every: int  # units to one attention check
    token: str = Field(unique=True)  # hash of the administrator's
    seed: int
    created: float

    @property
    def template(self) -> Template:
        return _template(self.asked)


class Item(_Table, table=True):
    __tablename__ = "judge_item"
    id: int | None = Field(default=None, primary_key=True)
    study_id: int = Field(foreign_key="judge_study.id", index=True)
    name: str
    context: dict[str, str] = Field(sa_type=sql.JSON)
    picture: str | None = None


class Output(_Table, table=True):
    __tablename__ = "judge_output"
    id: int | None = Field(default=None, primary_key=True)
    item_id: int = Field(foreign_key="judge_item.id", index=True)
    system: str
    text: str | None = None
    picture: str | None = None


class Picture(_Table, table=True):
    """A PNG by the SHA-256 of its bytes: no path leads to it."""

    __tablename__ = "judge_picture"
    digest: str = Field(primary_key=True)
    content: bytes
    width: int
    height: int


class Unit(_Table, table=True):
    __tablename__ = "judge_unit"
    id: int | None = Field(default=None, primary_key=True)
    study_id: int = Field(foreign_key="judge_study.id")
    item_id: int = Field(foreign_key="judge_item.id")
    first: int = Field(foreign_key="judge_output.id")
    second: int | None = Field(default=None, foreign_key="judge_output.id")
    check: bool = False
    right: dict[str, list[float]] | None = Field(default=None, sa_type=sql.JSON)  # values that pass, by question
    number: int  # its place in the shuffled study
    taken: int = 0  # assignments that are open or done
    __table_args__ = (sql.Index("judge_unit_free", "study_id", "check", "taken", "number"),)


class Rater(_Table, table=True):
    __tablename__ = "judge_rater"
    id: int | None = Field(default=None, primary_key=True)
    study_id: int = Field(foreign_key="judge_study.id")
    name: str
    token: str = Field(unique=True)  # hash
    seed: int
    share: int
    created: float
    revoked: float | None = None
    __table_args__ = (sql.UniqueConstraint("study_id", "name"),)


class Assignment(_Table, table=True):
    __tablename__ = "judge_assignment"
    id: int | None = Field(default=None, primary_key=True)
    study_id: int = Field(foreign_key="judge_study.id")
    unit_id: int = Field(foreign_key="judge_unit.id")
    rater_id: int = Field(foreign_key="judge_rater.id", index=True)
    check: bool
    flipped: bool  # the second output stands on the left
    state: str = "open"  # open, done, lapsed
    given: float
    deadline: float
    answered: float | None = None
    __table_args__ = (
        sql.UniqueConstraint("unit_id", "rater_id"),
        sql.Index("judge_assignment_late", "study_id", "state", "deadline"),
    )


class Judgement(_Table, table=True):
    __tablename__ = "judge_judgement"
    id: int | None = Field(default=None, primary_key=True)
    assignment_id: int = Field(foreign_key="judge_assignment.id")
    question: str
    value: float  # of the scale; of two outputs: 1 the unit's first, 0 its second, whichever side they stood on
    at: float
    seconds: float
    undone: float | None = None
    __table_args__ = (
        sql.Index(
            "judge_judgement_live",
            "assignment_id",
            "question",
            unique=True,
            sqlite_where=sql.text("undone IS NULL"),
            postgresql_where=sql.text("undone IS NULL"),
        ),
    )


class Version(_Table, table=True):
    """One row: the version of the tables."""

    __tablename__ = "judge_version"
    number: int = Field(primary_key=True)


def _count_versions(connection: sql.Connection) -> None:
    """The first tables told no version."""
    _Table.metadata.tables["judge_version"].create(connection, checkfirst=True)


#: what brings tables of version 0, 1, ... to the next one; whoever changes a table above adds a step
_STEPS: tuple[Callable[[sql.Connection], None], ...] = (_count_versions,)
VERSION = len(_STEPS)


#: what every answer asks, built once
_BOTH = select(Study, Rater).join(Rater, col(Rater.study_id) == Study.id).where(Rater.id == sql.bindparam("rater"))
_BOTH_LOCKED = _BOTH.with_for_update().execution_options(populate_existing=True)
_OPEN = (
    select(Assignment)
    .where(Assignment.rater_id == sql.bindparam("rater"), Assignment.state == "open")
    .order_by(col(Assignment.id))
    .limit(1)
)
_LAST = (
    select(Assignment.id)
    .where(Assignment.rater_id == sql.bindparam("rater"), Assignment.state == "done")
    .order_by(col(Assignment.answered).desc(), col(Assignment.id).desc())
    .limit(1)
)
_COUNTS = (
    select(Assignment.state, Assignment.check, sql.func.count(Assignment.id))
    .where(Assignment.rater_id == sql.bindparam("rater"))
    .group_by(col(Assignment.state), col(Assignment.check))
)
_KEEP = sql.insert(Judgement)
_MINE = select(Assignment.id).where(
    Assignment.unit_id == Unit.id, Assignment.rater_id == sql.bindparam("rater"), Assignment.state != "lapsed"
)
_FREE = (
    select(Unit)
    .where(Unit.study_id == sql.bindparam("study"), ~col(Unit.check), ~_MINE.exists())
    .order_by(col(Unit.number))
    .limit(1)
)
_AHEAD = _FREE.where(Unit.taken == sql.bindparam("taken"), col(Unit.number) >= sql.bindparam("start"))
_BEHIND = _FREE.where(Unit.taken == sql.bindparam("taken"), col(Unit.number) < sql.bindparam("start"))


# ------------------------------------------------------------------------------------------------- what a page is made of


@dataclass(frozen=True)
class Shown:
    """An output as a rater sees it: a text, or the (width, height) of a picture, fetched by assignment and place."""

    text: str | None
    picture: tuple[int, int] | None


@dataclass(frozen=True)
class Work:
    """One assignment without a word about systems. outputs: one, or left and right."""

    assignment: int
    context: Mapping[str, str]
    picture: tuple[int, int] | None
    outputs: tuple[Shown, ...]


@dataclass(frozen=True)
class Desk:
    """Where a rater stands. state: work, ready (there is some to begin), finished, paused or closed.

    last: the assignment that undoing takes back.  more: beyond this rater's share, the study has units left.
    """

    state: str
    work: Work | None
    done: int
    total: int
    last: int | None
    more: bool


@dataclass(frozen=True)
class Standing:
    """One rater in the administrator's table."""

    id: int
    name: str
    done: int
    share: int
    checks: int
    passed: int
    seconds: float | None  # median of an answer
    last: float | None
    revoked: bool


@dataclass(frozen=True)
class Standings:
    raters: tuple[Standing, ...]
    labels: int  # given, of `wanted`
    wanted: int
    undone: int  # answers that were taken back


class Refused(PapertrialError):
    """What a rater asked for cannot be done; the page says why."""


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


def hashed(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _same(token: str, kept: str) -> bool:
    return hmac.compare_digest(hashed(token), kept)


def stamp(at: float) -> str:
    """UTC to the millisecond, as the export writes it."""
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Store:
    """The database of any number of studies. Safe to use from many threads, and by many processes at once.

    place: a SQLite file, or postgresql://user:password@host/database. `create` makes the tables where there are none.
    Raises PapertrialError when it cannot be opened, is something else, or was written by a newer papertrial.
    """

    def __init__(self, place: str | Path, *, create: bool = False, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.name, self.engine = _engine(str(place), create)
        self._writer = self.engine.execution_options(writes=True)
        self._checks: dict[int | None, list[int]] = {}
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
        present, wanted = set(sql.inspect(connection).get_table_names()), set(_Table.metadata.tables)
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
                _Table.metadata.create_all(connection)
            for step in _STEPS[VERSION if version is None else version :]:
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

    def _write(self, study_id: int, work: Callable[[Session], _Result]) -> _Result:
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

    # ------------------------------------------------------------------------------------------------ the administrator

    def add(
        self,
        name: str,
        template: Template,
        material: Material,
        *,
        labels: int = 1,
        raters: int = 1,
        minutes: float = 30.0,
        seed: int | None = None,
    ) -> tuple[Study, str]:
        """A new study and its administrator's token, all or nothing. `raters` is how many will share the work."""
        token = secrets.token_urlsafe(32)
        seed = secrets.randbelow(LARGEST_ID) if seed is None else seed
        count = len(material.units)
        share = max(1, -(-count * labels // max(raters, 1)))
        checks = len(material.checks)
        study = Study(
            name=name,
            asked=asdict(template),
            labels=labels,
            units=count,
            share=share,
            minutes=minutes,
            check_every=min(10, max(2, share // checks)) if checks else 10,
            token=hashed(token),
            seed=seed,
            created=self.clock(),
        )
        order = list(range(count))
        random.Random(seed).shuffle(order)

        def add(session: Session) -> None:
            if session.exec(select(Study.id).where(Study.name == name)).first() is not None:
                raise PapertrialError(f"{self.name} already has a study {name!r}", "choose another name")
            session.add(study)
            session.flush()
            have: set[str] = set()
            entries = [*dict.fromkeys(unit.entry for unit in (*material.units, *material.checks))]
            places = {entry: _insert(session, study, entry, have) for entry in entries}
            for index, unit in enumerate((*material.units, *material.checks)):
                item, outputs = places[unit.entry]
                first, *second = (outputs[system] for system in unit.systems)
                session.add(
                    Unit(
                        study_id=study.id,
                        item_id=item,
                        first=first,
                        second=second[0] if second else None,
                        check=unit.right is not None,
                        right=unit.right,
                        number=order[index] if unit.right is None else index,
                    )
                )

        self._write(0, add)
        return study, token

    def studies(self) -> list[Study]:
        with self.reading() as session:
            return list(session.exec(select(Study).order_by(col(Study.id))))

    def study(self, name: str) -> Study:
        """Raises PapertrialError for a name that is not there."""
        found = {study.name: study for study in self.studies()}
        if name not in found:
            raise PapertrialError(f"{self.name} has no study {name!r}", did_you_mean(name, found))
        return found[name]

    def invite(self, study_id: int, names: Sequence[str]) -> list[tuple[str, str]]:
        """New raters: (name, token), which is told here and never again. Raises Refused for a name in use."""

        def invite(session: Session) -> list[tuple[str, str]]:
            study = _locked(session, study_id)
            used = set(session.exec(select(Rater.name).where(Rater.study_id == study_id)))
            made = []
            for name in names:
                if name in used:
                    raise Refused(f"{study.name!r} already has a rater {name!r}", "choose another name")
                used.add(name)
                token = secrets.token_urlsafe(32)
                session.add(
                    Rater(
                        study_id=study_id,
                        name=name,
                        token=hashed(token),
                        seed=secrets.randbelow(LARGEST_ID),
                        share=study.share,
                        created=self.clock(),
                    )
                )
                made.append((name, token))
            return made

        return self._write(study_id, invite)

    def next_names(self, study_id: int, count: int) -> list[str]:
        """`rater 1`, `rater 2`, ... that nobody has yet."""
        with self.reading() as session:
            used = set(session.exec(select(Rater.name).where(Rater.study_id == study_id)))
        free = (name for number in range(1, len(used) + count + 1) if (name := f"rater {number}") not in used)
        return [next(free) for _ in range(count)]

    def renew(self, study_id: int, rater_id: int | None) -> tuple[str, str]:
        """The name and a new token of a rater, or of the administrator (None); the old one opens nothing any more."""
        token = secrets.token_urlsafe(32)

        def renew(session: Session) -> tuple[str, str]:
            study = _locked(session, study_id)
            if rater_id is None:
                study.token = hashed(token)
                return "administrator", token
            rater = _rater_of(session, study_id, rater_id)
            rater.token, rater.revoked = hashed(token), None
            return rater.name, token

        return self._write(study_id, renew)

    def revoke(self, study_id: int, rater_id: int) -> None:
        """The rater enters no longer and what was given out goes back; the judgements stay."""

        def revoke(session: Session) -> None:
            _locked(session, study_id)
            rater = _rater_of(session, study_id, rater_id)
            rater.revoked = rater.revoked or self.clock()
            held = select(Assignment).where(Assignment.rater_id == rater_id, Assignment.state == "open")
            _lapse(session, session.exec(held).all())

        self._write(study_id, revoke)

    def set_state(self, study_id: int, state: str) -> None:
        """open; paused: nothing new is given out; closed: no answer is taken either."""
        if state not in ("open", "paused", "closed"):
            raise PapertrialError(f"a study cannot be {state!r}", "open, paused or closed")

        def change(session: Session) -> None:
            _locked(session, study_id).state = state

        self._write(study_id, change)

    def overview(self) -> list[tuple[Study, int, int]]:
        """(study, labels given, raters) of each study."""
        labels = (
            select(sql.func.count(Assignment.id))
            .where(Assignment.study_id == Study.id, Assignment.state == "done", ~col(Assignment.check))
            .scalar_subquery()
        )
        raters = select(sql.func.count(Rater.id)).where(Rater.study_id == Study.id).scalar_subquery()
        with self.reading() as session:
            return list(session.exec(select(Study, labels, raters).order_by(col(Study.id))))

    def standings(self, study_id: int) -> Standings:
        """How far each rater is, and how the checks went."""
        columns = (
            Assignment.rater_id,
            Assignment.unit_id,
            Assignment.check,
            Judgement.question,
            Judgement.value,
            Judgement.at,
            Judgement.seconds,
        )
        given = (
            sql.select(*columns)
            .join(Judgement, col(Judgement.assignment_id) == Assignment.id)
            .where(Assignment.study_id == study_id, col(Judgement.undone).is_(None))
        )
        undone = (
            select(sql.func.count(Judgement.undone))
            .join(Assignment, col(Assignment.id) == Judgement.assignment_id)
            .where(Assignment.study_id == study_id)
        )
        with self.reading() as session:
            raters = session.exec(select(Rater).where(Rater.study_id == study_id).order_by(col(Rater.id))).all()
            checks = session.exec(select(Unit.id, Unit.right).where(Unit.study_id == study_id, Unit.check)).all()
            wanted = session.exec(select(Study.units * Study.labels).where(Study.id == study_id)).one()
            answers: dict[int, list[Any]] = {}
            for row in session.connection().execute(given):
                answers.setdefault(row.rater_id, []).append(row)
            taken_back = session.exec(undone).one()
        told = tuple(_standing(rater, answers.get(rater.id or 0, []), dict(checks)) for rater in raters)
        return Standings(told, sum(rater.done for rater in told), wanted, taken_back)

    def judgements(self, study_id: int) -> Judgements:
        """Every judgement that was not undone, in the order given; checks apart."""
        first, second = (sql.orm.aliased(Output) for _ in range(2))
        with self.reading() as session:
            rows = session.exec(
                select(Judgement, Rater.name, Item.name, Unit.right, first.system, second.system)
                .join(Assignment, col(Assignment.id) == Judgement.assignment_id)
                .join(Rater, col(Rater.id) == Assignment.rater_id)
                .join(Unit, col(Unit.id) == Assignment.unit_id)
                .join(Item, col(Item.id) == Unit.item_id)
                .join(first, col(first.id) == Unit.first)
                .outerjoin(second, col(second.id) == Unit.second)
                .where(Assignment.study_id == study_id, col(Judgement.undone).is_(None))
                .order_by(col(Judgement.id))
            ).all()
        ratings, preferences, checks = [], [], []
        for judged, rater, item, right, one, two in rows:
            when = {"at": stamp(judged.at), "seconds": round(judged.seconds, 3)}
            if right is not None:
                checks += [Check(rater, judged.question, _passes(right, judged))] if judged.question in right else []
            elif two is None:
                ratings.append(Rating(item, one, rater, judged.question, judged.value, **when))
            else:
                preferences.append(Preference(item, one, two, rater, judged.question, judged.value, **when))
        return Judgements(tuple(ratings), tuple(preferences), tuple(checks))

    def count(self, study_id: int) -> int:
        """Judgements ever made and taken back: what is drawn from them is new when this is."""
        with self.reading() as session:
            return session.exec(
                select(sql.func.count(Judgement.id) + sql.func.count(Judgement.undone))
                .join(Assignment, col(Assignment.id) == Judgement.assignment_id)
                .where(Assignment.study_id == study_id)
            ).one()

    # -------------------------------------------------------------------------------------------------- who comes in

    def enter(self, token: str) -> tuple[str, int] | None:
        """("rater" or "admin", the study) that a token opens; None for one that opens nothing."""
        with self.reading() as session:
            rater = session.exec(select(Rater).where(Rater.token == hashed(token))).first()
            if rater is not None:
                return ("rater", rater.study_id) if rater.revoked is None and _same(token, rater.token) else None
            study = session.exec(select(Study).where(Study.token == hashed(token))).first()
            return ("admin", study.id or 0) if study is not None and _same(token, study.token) else None

    def rater(self, study_id: int, token: str) -> tuple[Study, Rater] | None:
        """The rater of this study who holds the token, unless revoked."""
        with self.reading() as session:
            found = session.exec(
                select(Study, Rater)
                .join(Rater, col(Rater.study_id) == Study.id)
                .where(Rater.token == hashed(token), Rater.study_id == study_id, col(Rater.revoked).is_(None))
            ).first()
        return found if found is not None and _same(token, found[1].token) else None

    def administers(self, study_id: int, token: str) -> Study | None:
        """The study, for its own administrator's token alone."""
        with self.reading() as session:
            study = session.get(Study, study_id)
        return study if study is not None and _same(token, study.token) else None

    # ------------------------------------------------------------------------------------------------------- the rater

    def desk(self, rater: Rater) -> Desk:
        """What to show; changes nothing."""
        with self.reading() as session:
            study, rater = session.exec(_BOTH, params={"rater": rater.id}).one()
            return self._desk(session, study, rater, _tally(session, rater), _open(session, rater))

    def take(self, rater: Rater, more: int = 0) -> Desk:
        """Give the rater a next unit unless one is open; `more` adds to a share that is done first."""

        def take(session: Session, study: Study, rater: Rater) -> Desk:
            if more and self._next(session, study, rater, _tally(session, rater)) is None:
                rater.share += more
            return self._given(session, study, rater)

        return self._as(rater, take)

    def answer(self, rater: Rater, assignment_id: int, values: Mapping[str, float]) -> Desk:
        """Keep the answers to an assignment (question -> value, of two outputs 1 the left, 0 the right), give the next.

        An assignment that is done already stays as it is: a double click, a second tab or the back button adds
        nothing. One that lapsed counts after all. Raises Refused for what is not the rater's, or when closed.
        """

        def answer(session: Session, study: Study, rater: Rater) -> Desk:
            given = session.get(Assignment, assignment_id) if 0 < assignment_id <= LARGEST_ID else None
            if given is None or given.rater_id != rater.id:
                raise Refused("this is not one of your items", "go back to the page and answer what it shows")
            if study.state == "closed":
                raise Refused("the study has been closed; this last answer was not kept")
            if given.state != "done":
                self._keep(session, given, values)
            return self._given(session, study, rater)

        return self._as(rater, answer)

    def undo(self, rater: Rater, assignment_id: int) -> Desk:
        """Take back the answers to the rater's last assignment and show it again; the next call goes further back.

        Nothing happens unless `assignment_id` is the last one: a double click takes back one.
        """

        def undo(session: Session, study: Study, rater: Rater) -> Desk:
            if study.state == "closed":
                raise Refused("the study has been closed; answers stay as they are")
            if session.exec(_LAST, params={"rater": rater.id}).first() == assignment_id:
                last = session.get_one(Assignment, assignment_id)
                now = self.clock()
                live = col(Judgement.assignment_id) == assignment_id, col(Judgement.undone).is_(None)
                session.exec(sql.update(Judgement).where(*live).values(undone=now))
                last.state, last.answered = "open", None
                last.given, last.deadline = now, now + 60 * study.minutes
                session.flush()
            return self._given(session, study, rater)

        return self._as(rater, undo)

    def _as(self, rater: Rater, step: Callable[[Session, Study, Rater], Desk]) -> Desk:
        """A rater's step, with the study locked."""

        def locked(session: Session) -> Desk:
            return step(session, *session.exec(_BOTH_LOCKED, params={"rater": rater.id}).one())

        return self._write(rater.study_id, locked)

    def picture(self, rater: Rater, assignment_id: int, place: int) -> bytes | None:
        """The PNG at a place of one of the rater's own assignments: 0 left or only, 1 right, 2 the item's own."""
        if not 0 < assignment_id <= LARGEST_ID:
            return None
        with self.reading() as session:
            given = session.get(Assignment, assignment_id)
            if given is None or given.rater_id != rater.id:
                return None
            unit = session.get_one(Unit, given.unit_id)
            sides = _sides(unit, given)
            if place == 2:
                digest = session.get_one(Item, unit.item_id).picture
            else:
                digest = session.get_one(Output, sides[place]).picture if place < len(sides) else None
            found = session.get(Picture, digest) if digest else None
        return found.content if found else None

    # --------------------------------------------------------------------------------------------------- the rules

    def _keep(self, session: Session, given: Assignment, values: Mapping[str, float]) -> None:
        now = self.clock()
        seconds = max(0.0, now - given.given)
        rows = [
            {"assignment_id": given.id, "question": question, "value": 1 - value if given.flipped else value}
            for question, value in values.items()
        ]
        session.connection().execute(_KEEP, [{**row, "at": now, "seconds": seconds} for row in rows])
        if given.state == "lapsed" and not given.check:
            session.get_one(Unit, given.unit_id).taken += 1
        given.state, given.answered = "done", now
        session.flush()

    def _given(self, session: Session, study: Study, rater: Rater) -> Desk:
        """The desk, with something on it if there is anything to give."""
        tally = _tally(session, rater)
        given = _open(session, rater)
        if given is None and study.state == "open":
            given = self._give(session, study, rater, tally)
        return self._desk(session, study, rater, tally, given)

    def _give(self, session: Session, study: Study, rater: Rater, tally: _Tally) -> Assignment | None:
        """Put the next unit on the rater's desk; None where there is nothing to give."""
        given = None
        unit = self._next(session, study, rater, tally)
        if unit is None:
            return None
        now = self.clock()
        if not unit.check and unit.taken >= study.labels:  # free only because someone let it lie
            late = select(Assignment).where(Assignment.unit_id == unit.id, *_late(study, now))
            _lapse(session, session.exec(late).all())
        if tally.lapsed:  # it may be one that this rater let lie
            own = select(Assignment).where(Assignment.unit_id == unit.id, Assignment.rater_id == rater.id)
            given = session.exec(own).first()
        if given is None:
            flipped = unit.second is not None and _draw(rater, unit.id).random() < 0.5
            given = Assignment(
                study_id=study.id, unit_id=unit.id, rater_id=rater.id, check=unit.check, flipped=flipped, given=now,
                deadline=now,
            )  # fmt: skip
        given.state, given.given, given.deadline = "open", now, now + 60 * study.minutes
        unit.taken += 1
        session.add(given)
        session.flush()
        return given

    def _next(
        self, session: Session, study: Study, rater: Rater, tally: _Tally, *, beyond: bool = False
    ) -> Unit | None:
        """The unit this rater would get now; None when the share is done (unless `beyond`) or nothing is left."""
        order = self._checks_of(session, study)
        if tally.checks < len(order) and tally.units >= _place(study, rater, tally.checks):
            random.Random(rater.seed).shuffle(order)
            return session.get_one(Unit, order[tally.checks])
        if tally.units >= rater.share and not beyond:
            return None
        start = _draw(rater, tally.units).randrange(max(study.units, 1))
        told = {"study": study.id, "rater": rater.id, "start": start}
        for taken in range(study.labels):  # the units with the fewest labels first, from a place drawn anew each time
            for free in (_AHEAD, _BEHIND):
                found = session.exec(free, params={**told, "taken": taken}).first()
                if found is not None:
                    return found
        late = select(Assignment.unit_id).where(*_late(study, self.clock()), ~col(Assignment.check))
        anew = _FREE.where(col(Unit.id).in_(late), col(Unit.taken) <= study.labels)
        return session.exec(anew, params=told).first()

    def _desk(self, session: Session, study: Study, rater: Rater, tally: _Tally, given: Assignment | None) -> Desk:
        checks = len(self._checks_of(session, study))
        total = rater.share + sum(_place(study, rater, index) <= rater.share for index in range(checks))
        more, state, work = False, study.state, None
        if state != "closed" and given is not None:
            state, work = "work", _work(session, given)
        elif state == "open":
            state = "ready" if self._next(session, study, rater, tally) is not None else "finished"
            more = state == "finished" and self._next(session, study, rater, tally, beyond=True) is not None
        last = session.exec(_LAST, params={"rater": rater.id}).first() if tally.done else None
        return Desk(state, work, tally.done, max(total, tally.done + (work is not None)), last, more)

    def _checks_of(self, session: Session, study: Study) -> list[int]:
        """Ids of the attention checks, which never change, as a list of the caller's own."""
        if study.id not in self._checks:
            found = select(Unit.id).where(Unit.study_id == study.id, Unit.check).order_by(col(Unit.number))
            self._checks[study.id] = list(session.exec(found))
        return list(self._checks[study.id])


# ------------------------------------------------------------------------------------------------------------ the engine


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
                f"{place.partition('://')[0]}:// is no database of ours",
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


def _insert(session: Session, study: Study, entry: Entry, have: set[str]) -> tuple[int, dict[str, int]]:
    """Rows of an item and its outputs: the item's id, and the outputs' ids by system."""

    def kept(picture: bytes | None) -> str | None:
        if picture is None:
            return None
        digest = hashlib.sha256(picture).hexdigest()
        if digest not in have and session.get(Picture, digest) is None:
            width, height = (int.from_bytes(picture[place : place + 4], "big") for place in (16, 20))  # its header
            session.add(Picture(digest=digest, content=picture, width=width, height=height))
        have.add(digest)
        return digest

    item = Item(study_id=study.id, name=entry.item, context=dict(entry.context), picture=kept(entry.picture))
    session.add(item)
    session.flush()
    outputs = {
        system: Output(item_id=item.id, system=system, text=output.text, picture=kept(output.picture))
        for system, output in entry.outputs.items()
    }
    session.add_all(outputs.values())
    session.flush()
    return item.id or 0, {system: output.id or 0 for system, output in outputs.items()}


# ---------------------------------------------------------------------------------------------------------- small steps


def _locked(session: Session, study_id: int) -> Study:
    """The study, with every other write to it waiting (SQLite: to any study) until this one is committed."""
    study = session.exec(
        select(Study).where(Study.id == study_id).with_for_update().execution_options(populate_existing=True)
    ).first()
    if study is None:
        raise PapertrialError("this study is not there", "papertrial judge status lists those that are")
    return study


def _rater_of(session: Session, study_id: int, rater_id: int) -> Rater:
    rater = session.get(Rater, rater_id) if 0 < rater_id <= LARGEST_ID else None
    if rater is None or rater.study_id != study_id:
        raise Refused("this study has no such rater", "load the page again")
    return rater


def _open(session: Session, rater: Rater) -> Assignment | None:
    """What lies on the rater's desk: the oldest first, so that undone ones come before what was given since."""
    return session.exec(_OPEN, params={"rater": rater.id}).first()


@dataclass(frozen=True)
class _Tally:
    """Assignments of a rater: done, units and checks that are or were on the desk, and what lapsed."""

    done: int
    units: int
    checks: int
    lapsed: int


def _tally(session: Session, rater: Rater) -> _Tally:
    rows = session.exec(_COUNTS, params={"rater": rater.id}).all()
    kept = [(check, count) for state, check, count in rows if state != "lapsed"]
    return _Tally(
        done=sum(count for state, _, count in rows if state == "done"),
        units=sum(count for check, count in kept if not check),
        checks=sum(count for check, count in kept if check),
        lapsed=sum(count for state, _, count in rows if state == "lapsed"),
    )


def _late(study: Study, now: float) -> tuple[Any, ...]:
    return Assignment.study_id == study.id, Assignment.state == "open", col(Assignment.deadline) < now


def _lapse(session: Session, assignments: Sequence[Assignment]) -> None:
    for assignment in assignments:
        assignment.state = "lapsed"
        session.get_one(Unit, assignment.unit_id).taken -= 1
    session.flush()


def _draw(rater: Rater, index: int | None) -> random.Random:
    """The rater's own draws, the same ones whenever they are asked for."""
    return random.Random(rater.seed * _APART + (index or 0))


def _place(study: Study, rater: Rater, index: int) -> int:
    """After how many units the check stands: one at a drawn place in every stretch of `check_every` units."""
    return index * study.check_every + 1 + _draw(rater, index).randrange(study.check_every)


def _sides(unit: Unit, given: Assignment) -> list[int]:
    outputs = [unit.first] if unit.second is None else [unit.first, unit.second]
    return outputs[::-1] if given.flipped else outputs


def _work(session: Session, given: Assignment) -> Work:
    unit = session.get_one(Unit, given.unit_id)
    item = session.get_one(Item, unit.item_id)
    sides = _sides(unit, given)
    found = {output.id: output for output in session.exec(select(Output).where(col(Output.id).in_(sides)))}
    outputs = [found[side] for side in sides]
    digests = {digest for digest in (item.picture, *(output.picture for output in outputs)) if digest}
    size = select(Picture.digest, Picture.width, Picture.height).where(col(Picture.digest).in_(digests))
    sizes = {digest: (width, height) for digest, width, height in session.exec(size)} if digests else {}
    shown = tuple(Shown(output.text, sizes.get(output.picture or "")) for output in outputs)
    return Work(given.id or 0, item.context, sizes.get(item.picture or ""), shown)


def _standing(rater: Rater, answers: Sequence[Any], right: Mapping[int, Mapping[str, Sequence[float]]]) -> Standing:
    """answers: rows of the columns that `standings` asks for."""
    done = {row.unit_id: row.seconds for row in answers if not row.check}
    checks = [_passes(right[row.unit_id], row) for row in answers if row.check and row.question in right[row.unit_id]]
    return Standing(
        id=rater.id or 0,
        name=rater.name,
        done=len(done),
        share=rater.share,
        checks=len(checks),
        passed=sum(checks),
        seconds=statistics.median(done.values()) if done else None,
        last=max((row.at for row in answers), default=None),
        revoked=rater.revoked is not None,
    )


def _passes(right: Mapping[str, Sequence[float]], judged: Any) -> bool:
    """Whether a question of a check was answered as it must be."""
    return any(abs(judged.value - value) < 1e-9 for value in right[judged.question])


def _template(kept: Mapping[str, Any]) -> Template:
    questions = [
        Question(row["name"], row["text"], Scale(tuple(row["scale"]["words"]), tuple(row["scale"]["values"])))
        for row in kept["questions"]
    ]
    return Template(kept["name"], kept["kind"], tuple(questions), kept["guidelines"], kept["source"])
