"""The indexes that the site searches: those it was given, those beside the runs and in the cache, and the reading list."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Lock

import numpy as np

from papertrial.app.web.runs import holds_links
from papertrial.core import ours
from papertrial.core.doors import Damaged
from papertrial.core.errors import PapertrialError
from papertrial.data.collections.files import Document
from papertrial.discover.index_folder import DOOR, MANIFEST, read
from papertrial.discover.search import Found, Hit, Searcher, reading_list

LIST = "list"
#: characters of a query and of a document that are looked at
_QUERY, _DOCUMENT = 500, 20_000
_ARXIV = re.compile(r"(?:arxiv:)?(\d{4}\.\d{4,5}|[a-z-]+(?:\.[A-Z]{2})?/\d{7})(v\d+)?", re.IGNORECASE)


class Indexes:
    """Indexes by name. One is read when it is first asked, and again when it was brought up to date."""

    def __init__(self, given: Iterable[Path], around: Iterable[Path]) -> None:
        """given: folders of indexes.  around: folders in which indexes are looked for.

        Raises PapertrialError for a given folder that is no index; one that is damaged says so when it is searched.
        """
        self._given = [folder.expanduser().resolve() for folder in given]
        for folder in self._given:
            with suppress(Damaged):
                read(folder)
        self._around = tuple(around)
        self._open: dict[Path, tuple[int, Searcher]] = {}
        self._list: Searcher | None = None
        self._lock = Lock()

    def names(self) -> dict[str, Path | None]:
        """Every index by a name of its own; the reading list, which has no folder, is the first."""
        found: dict[str, Path | None] = {LIST: None}
        for folder in dict.fromkeys([*self._given, *(inner for place in self._around for inner in _inside(place))]):
            name = folder.name
            while name in found:
                name += "'"
            found[name] = folder
        return found

    def searcher(self, name: str) -> Searcher:
        """Raises PapertrialError for a name that is not there, or an index that is damaged."""
        known = self.names()
        if name not in known:
            raise PapertrialError(f"there is no index {name!r} here", "give it with --index FOLDER")
        with self._lock:
            folder = known[name]
            if folder is None:
                self._list = self._list or reading_list()
                return self._list
            changed = (folder / MANIFEST).stat().st_mtime_ns
            if self._open.get(folder, (0,))[0] != changed:
                self._open[folder] = changed, Searcher(read(folder))
            return self._open[folder][1]

    def search(self, name: str, query: str, mode: str | None, most: int) -> Found:
        """One question at a time: a model that encodes queries is loaded once, and has the cores to itself."""
        searcher = self.searcher(name)
        with self._lock:
            return searcher.search(query[:_QUERY], most, mode)

    def document(self, name: str, identity: str) -> Document | None:
        """What an index holds of a document; None where it has none of that id."""
        store = self.searcher(name).store
        order = np.argsort(store.place)  # along it, ids ascend
        at = bisect_left(range(len(order)), identity, key=lambda place: store.id(int(order[place])))
        if at == len(order) or store.id(int(order[at])) != identity:
            return None
        found = store.document(int(order[at]))
        return Document(found.id, found.title, found.text[:_DOCUMENT])


def link(name: str, hit: Hit | Document) -> str:
    """Where a document can be read elsewhere: a paper's page, arXiv, or the web address it goes by; empty if nowhere."""
    if name == LIST:
        return f"/papers/{hit.id}"
    arxiv = _ARXIV.fullmatch(hit.id)
    if arxiv:
        return f"https://arxiv.org/abs/{arxiv[1]}"
    return hit.id if re.match(r"https?://[^\s]+$", hit.id) else ""


def _inside(folder: Path) -> Iterator[Path]:
    """Indexes in a folder, links not followed."""
    try:
        held = sorted(folder.iterdir()) if folder.is_dir() else []
    except PermissionError:
        return
    for entry in held:
        if _is_index(entry):
            yield entry.resolve()


def _is_index(folder: Path) -> bool:
    """What may not be read is none; one that is damaged is one, and says so when it is searched."""
    try:
        if folder.is_symlink() or not (folder / MANIFEST).is_file() or holds_links(folder):
            return False
        DOOR.read(folder / MANIFEST)
    except PermissionError:
        return False
    except PapertrialError:
        return ours.is_ours(folder, "index")
    return True
