"""The state in force, followed: a newer generation is loaded beside the old one, deltas and posts are applied to copies; then one
assignment swaps the scorer. A request takes the scorer once, and so never sees two states.

    current.json names another one      that generation is loaded, its deltas and all posts are applied, and it is swapped in
    the next delta of this generation   is applied; one that is missing, half-written or of another base is not, and a whole
                                        generation is asked for (wanted.json)
    an older generation                 is refused, unless current.json says that somebody rolled back (`prerank rollback`)

Whatever is refused is one line in the log, once; the server goes on with what it has.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from prerank.serving.change import apply
from prerank.serving.delta import deltas, read_delta
from prerank.serving.follow import Mirror
from prerank.serving.generation import CURRENT, PREFIX, WANTED, Generation, GenerationError, current, open_current
from prerank.serving.posts import Journal, Post, Posted, check
from prerank.serving.scorer import Builder, Scorer, loaded

log = logging.getLogger("prerank.serving")


class Pointer(NamedTuple):
    """What current.json says: the generation in force, whether somebody went back to it, and how many of its deltas may be applied."""

    folder: Path
    rolled_back: bool
    upto: int | None


def pointer(folder: Path) -> Pointer:
    """Raises GenerationError."""
    path = current(folder)
    said = json.loads((folder / CURRENT).read_text())
    return Pointer(path, "rolled_back_from" in said, said.get("upto"))


class Live:
    """Holds the scorer; see the module's first lines.

    folder   of generations, or one generation (which is then never replaced)
    mirror   brings generations and deltas into the folder from elsewhere (follow.py); None: somebody writes them there
    """

    def __init__(self, folder: str | Path, build: Builder, mirror: Mirror | None = None) -> None:
        """Raises GenerationError."""
        self.folder, self._build, self._mirror = Path(folder), build, mirror
        self._alone = (self.folder / "meta.json").is_file()
        self._lock = threading.Lock()
        self._journal, self._posted = Journal(self.folder), Posted()
        self._refused: set[str] = set()
        self._bad: tuple[Path, str] | None = None  # generation that was refused, and the current.json that named it
        self._pull()
        self._pure = open_current(folder)  # with its deltas, without posts
        self.scorer = Scorer(self._pure, build)
        with suppress(GenerationError):
            self.refresh()

    def refresh(self) -> bool:
        """Go on to what is published by now. True when something was swapped in. Raises GenerationError, once, for what is refused."""
        if self._alone:
            return False
        self.scorer.look()
        with self._lock:
            before, problem = self.scorer, self._pull()
            pure, refused = self._advanced()
            self._posted.absorb(self._journal.read())
            if pure is not self._pure:
                try:
                    self._swap(pure)
                except GenerationError as error:
                    refused = self._once(error, pure.folder.name, _stamp(self.folder / CURRENT))
                    self._bad = (pure.folder, _stamp(self.folder / CURRENT))
            if self.scorer.generation.posts != self._posted.count:
                self._swap(self._pure)
            problem = problem or refused
        if problem is not None:
            raise problem
        return self.scorer is not before

    def check(self, posts: Sequence[Post]) -> None:
        """Raise MessageError for changes that the model cannot take."""
        for i, one in enumerate(posts):
            check(self.scorer.generation, one, f"[{i}]." if len(posts) > 1 else "", self.scorer.plain)

    def post(self, posts: Sequence[Post]) -> None:
        """Write changes down, for every worker and server of the folder, and apply them here. Raises MessageError, OSError."""
        self.check(posts)
        self._journal.append(posts)
        with suppress(GenerationError):  # of what else there was to refuse; follow tells
            self.refresh()

    @property
    def takes_posts(self) -> bool:
        """Whether the folder is one in which changes can be written down."""
        return not self._alone

    async def follow(self, seconds: float, changed: Callable[[bool], None]) -> None:
        """Look every so many seconds, for ever.

        changed   called with True after a swap, False after a refusal
        """
        while True:
            await asyncio.sleep(seconds)
            before = self.scorer
            try:
                await asyncio.to_thread(self.refresh)
            except (ValueError, OSError) as error:  # nothing that is published may end the following
                generation = self.scorer.generation
                log.error("%s; generation %d with %d deltas stays", error, generation.meta.number, generation.sequence)
                changed(False)
            if self.scorer is not before:
                generation = self.scorer.generation
                log.info("generation %d with %d deltas is in force", generation.meta.number, generation.sequence)
                changed(True)

    def _pull(self) -> GenerationError | None:
        """Bring in what is new elsewhere; why that failed, the first time."""
        if self._mirror is None:
            return None
        try:
            self._mirror.pull()
        except GenerationError as error:
            return self._once(error, "source", str(error))
        self._refused = {key for key in self._refused if not key.startswith("source ")}
        return None

    def _swap(self, pure: Generation) -> None:
        """Put a generation in force, under what was posted. Raises GenerationError; then nothing has changed."""
        plain = self.scorer.plain
        if pure is not self._pure:
            plain = loaded(pure, self._build, plain if _shape(pure) == _shape(self._pure) else None)
        self.scorer, self._pure = Scorer(_with(pure, self._posted, plain), self._build, plain), pure

    def _advanced(self) -> tuple[Generation, GenerationError | None]:
        """The newest state that may be in force, and what was refused for the first time on the way."""
        pure, stamp = self._pure, _stamp(self.folder / CURRENT)
        try:
            named = pointer(self.folder)
            if self._bad == (named.folder, stamp):
                return pure, None
            if named.folder != pure.folder or (named.upto is not None and named.upto < pure.sequence):
                number = int(named.folder.name[len(PREFIX) :])
                if number < pure.meta.number and not named.rolled_back:
                    raise GenerationError(f"{CURRENT} names generation {number}, older than {pure.meta.number}, which is in force; "
                                          "go back by `prerank rollback`")  # fmt: skip
                self._bad = (named.folder, stamp)
                pure = Generation(named.folder)
                self._bad = None
        except GenerationError as error:
            return self._pure, self._once(error, CURRENT, stamp)
        return self._with_deltas(pure, named.upto)

    def _with_deltas(self, pure: Generation, upto: int | None) -> tuple[Generation, GenerationError | None]:
        there = {n: p for n, p in deltas(self.folder, pure.meta.number).items() if n > pure.sequence and (upto is None or n <= upto)}
        while there:
            following = pure.sequence + 1
            path = there.pop(following, None)
            try:
                if path is None:
                    raise GenerationError(f"delta {following} of generation {pure.meta.number} is missing, there are later ones")
                changes = read_delta(path, pure, following)
                newer = apply(pure, changes)
            except GenerationError as error:
                told = self._once(error, f"{pure.folder.name}+{following}", "" if path is None else _stamp(path))
                if told is not None:
                    self._ask(pure, str(error))
                return pure, told
            newer.sequence = following
            pure = newer
        return pure, None

    def _once(self, error: GenerationError, what: str, stamp: str) -> GenerationError | None:
        """The error, the first time that it comes of the same files."""
        key = f"{what} {stamp}"
        if key in self._refused:
            return None
        self._refused.add(key)
        return error

    def _ask(self, pure: Generation, reason: str) -> None:
        """Tell whoever publishes that deltas do not help any more."""
        wanted = json.dumps({"generation": pure.meta.number, "sequence": pure.sequence, "reason": reason, "at": time.time()}).encode()
        if self._mirror is not None:
            self._mirror.source.ask(wanted)
            return
        temporary = self.folder / f".{WANTED}.{os.getpid()}"
        try:
            temporary.write_bytes(wanted)
            temporary.replace(self.folder / WANTED)
        except OSError as error:
            log.error("a whole generation cannot be asked for: %s", error)


def scorer_at(folder: str | Path, build: Builder, generation: int, sequence: int = 0, posts: int = 0) -> Scorer:
    """The state that an answer names, again: what it scores is what was answered. Raises GenerationError."""
    folder = Path(folder)
    pure = Generation(folder / f"{PREFIX}{generation:06d}")
    for n in range(1, sequence + 1):
        pure = apply(pure, read_delta(deltas(folder, generation).get(n, folder / "none"), pure, n))
        pure.sequence = n
    posted = Posted()
    posted.absorb(Journal(folder).read()[:posts])
    plain = loaded(pure, build)
    return Scorer(_with(pure, posted, plain), build, plain)


def _shape(generation: Generation) -> tuple[object, ...]:
    """What the builder makes a model of."""
    meta = generation.meta
    return meta.model, meta.schema, meta.sizes, meta.synergy


def _with(pure: Generation, posted: Posted, plain: object) -> Generation:
    """A generation under what was posted."""
    if not len(posted):
        return pure
    found = apply(pure, posted.over(pure, plain))  # type: ignore[arg-type]
    found.posts = posted.count
    return found


def _stamp(path: Path) -> str:
    """Changes when a file, or what is in a folder, does."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    with suppress(OSError):
        return " ".join(f"{f.stat().st_size}/{f.stat().st_mtime_ns}" for f in files)
    return ""
