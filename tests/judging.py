"""What the tests of `papertrial judge` share: studies, PostgreSQL servers, and the raters of bench/judge.py."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

import pytest

from papertrial.app.judge.outputs import read
from papertrial.app.judge.store import Store
from papertrial.core.judgement import template

ROOT = Path(__file__).parents[1]


def bench():
    """bench/judge.py as a module."""
    spec = importlib.util.spec_from_file_location("bench_judge", ROOT / "bench" / "judge.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def write_rows(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def outputs(folder: Path, items: int = 6, systems: str = "ab") -> Path:
    return write_rows(
        folder / "outputs.jsonl",
        [
            {
                "item": f"i{item}",
                "system": f"system-{system}",
                "source": f"question {item}",
                "output": f"{system}{item}",
            }
            for item in range(items)
            for system in systems
        ],
    )


def new_study(store: Store, file: Path, *, asked: str = "genie", raters: int = 2, checks: Path | None = None, **more):
    """(study, administrator's token, [(rater, token), ...])."""
    form = template(asked)
    study, admin = store.add(
        f"study {uuid.uuid4()}", form, read([str(file)], form, checks=checks), raters=raters, **more
    )
    invited = store.invite(study.id, store.next_names(study.id, raters))
    return study, admin, [(store.rater(study.id, token)[1], token) for _, token in invited]


class Postgres:
    """A server of its own in a temporary folder, reached by a socket there; each study is in a schema of its own."""

    def __init__(self) -> None:
        # where nobody else listens, and short enough for the path of a socket
        self.folder = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
        self.user = {}
        if os.geteuid() == 0:  # which PostgreSQL refuses
            shutil.chown(self.folder, "nobody")
            self.user = {"user": "nobody", "cwd": self.folder}
        self.run("initdb", "-D", self.folder / "data", "-U", "judge", "-A", "trust", "--no-sync", "-E", "UTF8")
        self.start()

    def run(self, *words) -> None:
        # no pipes: the server would keep them open
        with (self.folder / "log").open("a") as log:
            subprocess.run([*map(str, words)], check=True, stdout=log, stderr=log, timeout=120, **self.user)

    def start(self) -> None:
        options = f"-k {self.folder} -c listen_addresses='' -c max_connections=200 -c fsync=off"
        self.run("pg_ctl", "-D", self.folder / "data", "-o", options, "-l", self.folder / "server.log", "-w", "start")

    def stop(self, how: str) -> None:
        self.run("pg_ctl", "-D", self.folder / "data", "-m", how, "-w", "stop")

    def database(self) -> str:
        """The address of a new schema, which is made in no time."""
        import psycopg

        name = f"d{uuid.uuid4().hex[:12]}"
        with psycopg.connect(host=str(self.folder), user="judge", dbname="postgres", autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"postgresql://judge@/postgres?host={self.folder}&options=-csearch_path%3D{name}"


@contextlib.contextmanager
def postgres():
    """Skips with a reason where there is no PostgreSQL."""
    pytest.importorskip("psycopg", reason="needs psycopg (the extra postgres)")
    if not all(map(shutil.which, ("initdb", "pg_ctl", "postgres"))):
        pytest.skip("needs a PostgreSQL server (initdb, pg_ctl) on the PATH")
    server = Postgres()
    try:
        yield server
    finally:
        server.stop("immediate")
        shutil.rmtree(server.folder)
