"""What a study by people keeps: whoever asks at the same moment, an item gets no more labels than asked for.

Every write locks the row of its study first, so that the writes of one study come one after another (`database`). Which item
a rater gets next is the schedule's affair (`scheduling`), the tables are in `tables`.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import secrets
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import sqlalchemy as sql
from sqlmodel import Session, col, select

from papertrial.app.judge import scheduling
from papertrial.app.judge.database import Database
from papertrial.app.judge.outputs import Entry, Material
from papertrial.app.judge.scheduling import Desk, Refused, Schedule
from papertrial.app.judge.tables import LARGEST_ID, Assignment, Item, Judgement, Output, Picture, Rater, Study, Unit
from papertrial.app.judge.tables import Remark as Said
from papertrial.core.errors import PapertrialError, did_you_mean
from papertrial.core.judgement import Check, Judgements, Preference, Rating, Remark, Template

#: what every answer asks, built once
_BOTH = select(Study, Rater).join(Rater, col(Rater.study_id) == Study.id).where(Rater.id == sql.bindparam("rater"))
_BOTH_LOCKED = _BOTH.with_for_update().execution_options(populate_existing=True)


@dataclass(frozen=True)
class RaterProgress:
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
    refused: int  # that could not be judged


@dataclass(frozen=True)
class StudyProgress:
    """How far a study is, all its raters together and one by one."""

    raters: tuple[RaterProgress, ...]
    labels: int  # given, of `wanted`
    wanted: int
    undone: int  # answers that were taken back


def hashed(token: str) -> str:
    """The form in which a token is kept."""
    return hashlib.sha256(token.encode("utf-8", "replace")).hexdigest()


def _same(token: str, kept: str) -> bool:
    return hmac.compare_digest(hashed(token), kept)


def stamp(at: float) -> str:
    """UTC to the millisecond, as the export writes it."""
    return datetime.fromtimestamp(at, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Store(Database):
    """The database of any number of studies. Safe to use from many threads, and by many processes at once.

    place, create: as for a Database.  clock: seconds since 1970.
    """

    def __init__(self, place: str | Path, *, create: bool = False, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self.schedule = Schedule(clock)
        super().__init__(place, create=create)

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

        self.write(0, add)
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

        return self.write(study_id, invite)

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

        return self.write(study_id, renew)

    def revoke(self, study_id: int, rater_id: int) -> None:
        """The rater enters no longer and what was given out goes back; the judgements stay."""

        def revoke(session: Session) -> None:
            _locked(session, study_id)
            rater = _rater_of(session, study_id, rater_id)
            rater.revoked = rater.revoked or self.clock()
            held = select(Assignment).where(Assignment.rater_id == rater_id, Assignment.state == "open")
            scheduling.lapse(session, session.exec(held).all())

        self.write(study_id, revoke)

    def set_state(self, study_id: int, state: str) -> None:
        """open; paused: nothing new is given out; closed: no answer is taken either."""
        if state not in ("open", "paused", "closed"):
            raise PapertrialError(f"a study cannot be {state!r}", "open, paused or closed")

        def change(session: Session) -> None:
            _locked(session, study_id).state = state

        self.write(study_id, change)

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

    def progress(self, study_id: int) -> StudyProgress:
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
        refused = (
            select(Assignment.rater_id, sql.func.count(Assignment.id))
            .where(Assignment.study_id == study_id, Assignment.state == "refused")
            .group_by(col(Assignment.rater_id))
        )
        with self.reading() as session:
            raters = session.exec(select(Rater).where(Rater.study_id == study_id).order_by(col(Rater.id))).all()
            checks = session.exec(select(Unit.id, Unit.right).where(Unit.study_id == study_id, Unit.check)).all()
            wanted = session.exec(select(Study.units * Study.labels).where(Study.id == study_id)).one()
            answers: dict[int, list[Any]] = {}
            for row in session.connection().execute(given):
                answers.setdefault(row.rater_id, []).append(row)
            taken_back = session.exec(undone).one()
            without = dict(session.exec(refused).all())
        told = tuple(
            _progress(rater, answers.get(rater.id or 0, []), dict(checks), without.get(rater.id or 0, 0))
            for rater in raters
        )
        return StudyProgress(told, sum(rater.done for rater in told), wanted, taken_back)

    def judgements(self, study_id: int) -> Judgements:
        """Every judgement that was not undone, in the order given; checks apart."""
        rows = self._about(study_id, Judgement)
        ratings, preferences, checks = [], [], []
        for judged, rater, item, right, one, two in rows:
            when = {"at": stamp(judged.at), "seconds": round(judged.seconds, 3)}
            if right is not None:
                checks += [Check(rater, judged.question, _passes(right, judged))] if judged.question in right else []
            elif two is None:
                ratings.append(Rating(item, one, rater, judged.question, judged.value, **when))
            else:
                preferences.append(Preference(item, one, two, rater, judged.question, judged.value, **when))
        return Judgements(tuple(ratings), tuple(preferences), tuple(checks), self.remarks(study_id))

    def remarks(self, study_id: int) -> tuple[Remark, ...]:
        """What raters wrote, in the order given; of checks nothing."""
        return tuple(
            Remark(item, rater, said.text, said.judged, at=stamp(said.at), **_sides_of(one, two))
            for said, rater, item, right, one, two in self._about(study_id, Said)
            if right is None
        )

    def _about(self, study_id: int, table: Any) -> Sequence[Any]:
        """Rows of `table` that were not undone, with rater, item, the right answers of a check, and systems."""
        first, second = (sql.orm.aliased(Output) for _ in range(2))
        asked = (
            select(table, Rater.name, Item.name, Unit.right, first.system, second.system)
            .join(Assignment, col(Assignment.id) == table.assignment_id)
            .join(Rater, col(Rater.id) == Assignment.rater_id)
            .join(Unit, col(Unit.id) == Assignment.unit_id)
            .join(Item, col(Item.id) == Unit.item_id)
            .join(first, col(first.id) == Unit.first)
            .outerjoin(second, col(second.id) == Unit.second)
            .where(Assignment.study_id == study_id, col(table.undone).is_(None))
            .order_by(col(table.id))
        )
        with self.reading() as session:
            return session.exec(asked).all()

    def shown(self, study_id: int) -> dict[str, dict[str, dict[str, str]]]:
        """What judgements are about, as `Judgements.write` takes it: texts alone."""
        asked = select(Item, Output).join(Output, col(Output.item_id) == Item.id).where(Item.study_id == study_id)
        found: dict[str, dict[str, dict[str, str]]] = {}
        with self.reading() as session:
            for item, output in session.exec(asked):
                about = found.setdefault(item.name, {"": dict(item.context)})
                about[output.system] = {} if output.text is None else {"output": output.text}
        return found

    def count(self, study_id: int) -> int:
        """Judgements and remarks ever made and taken back: what is drawn from them is new when this is."""

        def made(table: Any) -> Any:
            return (
                select(sql.func.count(table.id) + sql.func.count(table.undone))
                .join(Assignment, col(Assignment.id) == table.assignment_id)
                .where(Assignment.study_id == study_id)
            )

        with self.reading() as session:
            return session.exec(made(Judgement)).one() + session.exec(made(Said)).one()

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
            return self.schedule.desk(
                session, study, rater, scheduling.tally(session, rater), scheduling.on_desk(session, rater)
            )

    def take(self, rater: Rater, more: int = 0) -> Desk:
        """Give the rater a next unit unless one is open; `more` adds to a share that is done first."""

        def take(session: Session, study: Study, rater: Rater) -> Desk:
            if more and self.schedule.next_unit(session, study, rater, scheduling.tally(session, rater)) is None:
                rater.share += more
            return self.schedule.fill_desk(session, study, rater)

        return self._as(rater, take)

    def answer(self, rater: Rater, assignment_id: int, values: Mapping[str, float], remark: str = "") -> Desk:
        """Keep the answers to an assignment (question -> value, of two outputs 1 the left, 0 the right), give the next.

        remark: what the rater adds in words.
        An assignment that is done already stays as it is: a double click, a second tab or the back button adds
        nothing. One that lapsed counts after all. Raises Refused for what is not the rater's, or when closed.
        """
        return self._finish(
            rater, assignment_id, lambda session, given: self.schedule.keep(session, given, values, remark)
        )

    def refuse(self, rater: Rater, assignment_id: int, why: str) -> Desk:
        """Keep why an assignment cannot be judged, give the next. Raises Refused without a reason, and as `answer`."""
        if not why:
            raise Refused("it is not said why this cannot be judged", "write the reason in a few words")
        return self._finish(rater, assignment_id, lambda session, given: self.schedule.refuse(session, given, why))

    def _finish(self, rater: Rater, assignment_id: int, keep: Callable[[Session, Assignment], None]) -> Desk:
        def finish(session: Session, study: Study, rater: Rater) -> Desk:
            given = session.get(Assignment, assignment_id) if 0 < assignment_id <= LARGEST_ID else None
            if given is None or given.rater_id != rater.id:
                raise Refused("this is not one of your items", "go back to the page and answer what it shows")
            if study.state == "closed":
                raise Refused("the study has been closed; this last answer was not kept")
            if given.state not in scheduling.FINISHED:
                keep(session, given)
            return self.schedule.fill_desk(session, study, rater)

        return self._as(rater, finish)

    def undo(self, rater: Rater, assignment_id: int) -> Desk:
        """Take back the answers to the rater's last assignment and show it again; the next call goes further back.

        Nothing happens unless `assignment_id` is the last one: a double click takes back one.
        """

        def undo(session: Session, study: Study, rater: Rater) -> Desk:
            if study.state == "closed":
                raise Refused("the study has been closed; answers stay as they are")
            self.schedule.take_back(session, study, rater, assignment_id)
            return self.schedule.fill_desk(session, study, rater)

        return self._as(rater, undo)

    def _as(self, rater: Rater, step: Callable[[Session, Study, Rater], Desk]) -> Desk:
        """A rater's step, with the study locked."""

        def locked(session: Session) -> Desk:
            return step(session, *session.exec(_BOTH_LOCKED, params={"rater": rater.id}).one())

        return self.write(rater.study_id, locked)

    def picture(self, rater: Rater, assignment_id: int, place: int) -> bytes | None:
        """The PNG at a place of one of the rater's own assignments: 0 left or only, 1 right, 2 the item's own."""
        if not 0 < assignment_id <= LARGEST_ID:
            return None
        with self.reading() as session:
            given = session.get(Assignment, assignment_id)
            if given is None or given.rater_id != rater.id:
                return None
            unit = session.get_one(Unit, given.unit_id)
            sides = scheduling.sides(unit, given)
            if place == 2:
                digest = session.get_one(Item, unit.item_id).picture
            else:
                digest = session.get_one(Output, sides[place]).picture if place < len(sides) else None
            found = session.get(Picture, digest) if digest else None
        return found.content if found else None


def _sides_of(one: str, two: str | None) -> dict[str, str]:
    return {"system": one} if two is None else {"first": one, "second": two}


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


def _progress(
    rater: Rater, answers: Sequence[Any], right: Mapping[int, Mapping[str, Sequence[float]]], refused: int
) -> RaterProgress:
    """answers: rows of the columns that `progress` asks for."""
    done = {row.unit_id: row.seconds for row in answers if not row.check}
    checks = [_passes(right[row.unit_id], row) for row in answers if row.check and row.question in right[row.unit_id]]
    return RaterProgress(
        id=rater.id or 0,
        name=rater.name,
        done=len(done),
        share=rater.share,
        checks=len(checks),
        passed=sum(checks),
        seconds=statistics.median(done.values()) if done else None,
        last=max((row.at for row in answers), default=None),
        revoked=rater.revoked is not None,
        refused=refused,
    )


def _passes(right: Mapping[str, Sequence[float]], judged: Any) -> bool:
    """Whether a question of a check was answered as it must be."""
    return any(abs(judged.value - value) < 1e-9 for value in right[judged.question])
