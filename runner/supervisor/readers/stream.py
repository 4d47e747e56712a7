"""Readers of one stream: which lines are looked at, by which readers in which order, and the points of their readings.

Most lines of most programs hold no metric, so one compiled expression searches a whole block for marks of a candidate,
and only candidate lines are decoded and read. JSON is read without limit; lines of text up to a rate, beyond which some
are only logged, with a notice.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

from runner.supervisor import notices as kinds
from runner.supervisor.curve import Curve, Reading, Value
from runner.supervisor.notices import Notices
from runner.supervisor.readers import objects, prefixes
from runner.supervisor.readers.bars import Bars
from runner.supervisor.readers.boosting import Boosting
from runner.supervisor.readers.fairseq import Fairseq
from runner.supervisor.readers.keras import Keras
from runner.supervisor.readers.optuna import Optuna
from runner.supervisor.readers.pairs import TIMES, Pairs, step_alone
from runner.supervisor.readers.patterns import Patterns
from runner.supervisor.readers.pytorch import PyTorch
from runner.supervisor.readers.sklearn import Sklearn
from runner.supervisor.readers.solvers import Solvers
from runner.supervisor.readers.tables import Boxes, Fastai, Spacy, Yolo

AUTO, JSON, NONE = "AUTO", "JSON", "NONE"
MAX_SHAPE = 1 << 10  # bytes of a line whose shape is remembered
MAX_SHAPES = 2_048
MAX_LINE = 8 << 10  # bytes of a line of text; JSON may be longer
TEXT_RATE = 2_000  # candidate lines a second
TEXT_BURST = 20_000
UNREAD_SECONDS = 20.0  # without a point, after which lines that look like metrics are a notice

# What a candidate has: an object; a number behind a name and `:` or `=` (not a clock's); a number behind a word that
# ends like step, epoch, iter, iteration, batch, update, trial, norm, or loss, acc, reward, round; a boosting round; a
# table's header or section.
# All begin with one set of bytes, for which the `re` module searches without trying to match (10 times as fast).
_MARK = re.compile(
    rb"[{:=\] \t](?:"
    rb"[0-9](?:(?<=[phrnmel][ \t][0-9])|(?<=(?:ss|cc|cy|rd|nd|it)[ \t][0-9]))"
    rb"|\[[0-9](?<=[phrnmel][ \t]\[[0-9])"
    rb"|(?<=[{:=\]\t])(?:"
    rb"(?<=[:=])(?<![0-9:=][:=])[ \t]{0,8}[\[(]?[-+]?(?:[0-9]|\.[0-9]|[nN][aA][nN]|[iI][nN][fF])"
    rb"|(?<=\{)[ \t]*[\"'A-Za-z]"
    rb"|(?<=[0-9]\])(?:\t|[ \t]*\w+[ \t:=]+[-+.]?[0-9])"
    rb"|(?<=[0-9]:\t)(?:learn|test))"
    rb"|[IES](?<=   [IES])(?:ter|teration|poch|tep) {2}"
    rb"| (?:(?<=(?:Iter|Step|poch|tion)  ) {0,24}[A-Za-z]"
    rb"| {0,6}(?:\| {4,99}\|[\r\n]|train_loss  valid_loss |# {3,9}[A-Z])))"
)
_OBJECT = re.compile(rb"\{[ \t]*[\"'A-Za-z]")
_STEP_KEY = re.compile(r"[\"'](?:global_)?step[\"']\s*:")
_BAR = re.compile(r"\d%|it/s|s/it|/step\b|[\u2501=>.]{3}")


class Reader(Protocol):
    """A form of text."""

    def read(self, text: str, elapsed: float) -> list[Reading] | None: ...


class Table(Reader, Protocol):
    """A form whose rows hold numbers alone: while one is under way, each line is looked at."""

    @property
    def has_table(self) -> bool: ...


class _Route(NamedTuple):
    """The reader of lines of a shape, and how long the prefix is in front of its text."""

    reader: Reader
    offset: int


_UNKNOWN = object()
_DIGITS = b"0123456789"
_LINE_END = _DIGITS + b"\n"
AddPoints = Callable[[int, float, Sequence[tuple[str, Value]]], None]
AddLog = Callable[[str, str], None]


class Stream:
    """Readers of one stream of an attempt. The curve, notices and patterns are shared with the other stream."""

    def __init__(
        self,
        name: str,
        mode: str,
        curve: Curve,
        notices: Notices,
        patterns: Patterns,
        add_points: AddPoints,
        add_log: AddLog,
    ) -> None:
        self._is_stderr = name == "STDERR"
        self._reads_text = mode == AUTO
        self._reads_json = mode != NONE
        self._curve = curve
        self._notices = notices
        self._patterns = patterns
        self._add_points = add_points
        self._add_log = add_log
        self._tables: list[Table] = [Sklearn(), Boxes(), Yolo(), Fastai(), Spacy()]
        self._has_table = False
        self._bars = Bars()
        self._fairseq = Fairseq()
        self._pairs = Pairs()
        self._forms: list[Reader] = [
            Keras(), Boosting(), *reversed(self._tables), Optuna(), PyTorch(), Solvers(), self._fairseq, self._bars,
        ]  # fmt: skip
        self._routes: dict[bytes, _Route | None] = {}  # by shape, the line without its digits; None: no form's
        self._dull = {b""}  # shapes of no form's lines, without their newline
        self._search = _MARK.search if self._reads_text else _OBJECT.search
        self._told: set[str] = set()
        self._has_rank_0 = False
        self._unread = 0  # counted in a notice so far
        self._allowance = float(TEXT_BURST)
        self._refilled_at = time.monotonic()

    @property
    def is_deaf(self) -> bool:
        """True if no line is ever looked at."""
        return not self._reads_json and not self._patterns

    def next_line(self, block: bytes, at: int) -> tuple[int, int] | None:
        """Find the next candidate line; at: the start of a line. Returns its start and its end, newline included."""
        if self._has_table or self._patterns:
            return (at, block.find(b"\n", at) + 1 or len(block)) if at < len(block) else None
        if not self._reads_json or (not at and self._is_dull(block)):
            return None
        search, routes = self._search, self._routes
        while (mark := search(block, at)) is not None:
            begin = max(block.rfind(b"\n", at, mark.start()) + 1, at)
            at = block.find(b"\n", mark.start()) + 1 or len(block)
            line = block[begin:at]
            if b"{" in line or routes.get(line.translate(None, _DIGITS), _UNKNOWN) is not None:
                return begin, at
        return None

    def _is_dull(self, block: bytes) -> bool:
        """Whether all lines are of shapes that no reader takes: a tenth of a search, where lines repeat."""
        dull = self._dull
        first = block[: block.find(b"\n") + 1].translate(None, _LINE_END)
        return first in dull and dull.issuperset(block.translate(None, _DIGITS).split(b"\n"))

    def read(self, line: bytes, elapsed: float) -> bool:
        """Read a line; True if it was nothing but points, which then needs no place in the log."""
        text = line.decode("utf-8", "replace").rstrip("\n")
        if self._patterns:
            reading = self._patterns.read(text.lstrip("\r"))
            if reading is not None:
                self._emit(reading, text, elapsed)
                return False
        if self._reads_json:
            brace = text.find("{")
            if brace >= 0:
                is_used_up = self._objects(text, brace, elapsed)
                if is_used_up is not None:
                    return is_used_up
        if self._reads_text and len(line) <= MAX_LINE:
            self._text(line, text.lstrip("\r"), elapsed)
            if self._has_table:
                self._look_for_tables()
        return False

    def redrawn(self, line: bytes, elapsed: float) -> None:
        """Read the present state of a line that is still being drawn: a bar."""
        if self._reads_text and len(line) <= MAX_LINE:
            text = line.decode("utf-8", "replace").strip("\r")
            self._take(Bars.__name__, self._bars.redrawn(text), text, elapsed)

    def tick(self, elapsed: float, *, is_last: bool = False) -> None:
        """Count lines that look like metrics while there are no points, and metrics with units."""
        for name, (count, pair) in self._pairs.unusable.items():
            self._notices.count(
                kinds.VALUES_UNUSABLE, pair, subject=name, by=count, advice="Numbers with a unit are none either."
            )
        self._pairs.unusable.clear()
        if self._curve.is_empty and (is_last or elapsed > UNREAD_SECONDS) and self._pairs.unread > self._unread:
            more, self._unread = self._pairs.unread - self._unread, self._pairs.unread
            self._notices.count(
                kinds.LOOKS_LIKE_METRICS,
                self._pairs.pair,
                by=more,
                advice=_pattern_advice(self._pairs.pair, has_step=self._pairs.has_step),
            )

    # --- objects -----------------------------------------------------------------------------------------------------

    def _objects(self, text: str, brace: int, elapsed: float) -> bool | None:
        """Read the objects of a line; None if it has to be read as text."""
        before = text[:brace].strip(" \t\r")
        body = text[brace:].rstrip()
        needs_name = False
        if before == "[" and body.endswith("]"):  # an array of objects
            body, before, needs_name = body[:-1].rstrip(), "", True
        elif before and body.endswith(")") and objects.is_wrapper(before):
            body, before = body[:-1], ""
        elif before and before != "\ufeff":
            whole = text.lstrip("\r\ufeff")
            line = prefixes.cut(whole)
            if line.text.startswith("{") and len(line.text) == len(text) - brace:
                if self._reads_text and line.is_logged and (readings := self._fairseq.read(whole, elapsed)) is not None:
                    self._take(Fairseq.__name__, readings, text, elapsed)
                    return False
                if line.rank:
                    return self._of_higher_rank(body, line.rank)
                self._has_rank_0 = self._has_rank_0 or line.rank == 0
                needs_name = line.is_logged
            elif (rank := prefixes.plain_rank(before)) is not None and _STEP_KEY.search(body) is not None:
                if rank:
                    return self._of_higher_rank(body, rank)
                self._has_rank_0 = True
            elif prefixes.are_fields(f"{before.lstrip()} ") or text.startswith("\r") or _BAR.search(before):
                needs_name = True
            else:
                return self._behind_unknown(text, body, elapsed)
        records, is_all = objects.parse(body)
        if not records:
            records, is_all = objects.parse_bare(body)
        if not records:
            return self._no_json(text, body, elapsed)
        if needs_name and not any(map(objects.holds_metrics, records)):
            return None if before else False
        if self._is_stderr:
            if any(map(objects.holds_metrics, records)):
                self._notices.count(kinds.JSON_ON_STDERR, text)
            return False
        if not is_all:
            if any(map(objects.holds_metrics, records)):
                self._notices.count(kinds.NEARLY_JSON, text)
            if "{" not in body[1:]:
                return False
            rest = body[body.rfind("}") + 1 :].lstrip() if body.count("{") <= len(records) else "{"
            if not rest.startswith("{"):
                return False
        if before == "\ufeff":
            self._notices.count(kinds.BYTE_ORDER_MARK, text)
        return all(self._record(record, text, elapsed) for record in records) and is_all

    def _record(self, record: Mapping[str, object], text: str, elapsed: float) -> bool:
        """Take the points of an object; True if every key was one."""
        found = objects.numbers_of(record)
        if (found.step is None or not found.is_whole) and objects.is_log_record(record):
            return False
        if found.problem is not None:
            if found.problem == kinds.STEP_UNUSABLE or objects.is_meant(record):
                self._notices.count(found.problem, text)
            return False
        if found.is_text_step:
            self._notices.count(kinds.STEP_AS_TEXT, text)
        if not found.is_whole and (name := objects.not_numbers(record)):
            self._notices.count(kinds.VALUES_UNUSABLE, text, subject=name)
        step, points = self._curve.take(Reading(found.step, found.values), text)
        if points:
            self._add_points(step, elapsed, points)
        return found.is_whole and len(points) == len(found.values)

    def _no_json(self, text: str, body: str, elapsed: float) -> bool | None:
        """Read a Python dict, or count a line that was nearly JSON."""
        record = objects.parse_dict(body) if "'" in body[:256] else None
        if record is not None:
            if not self._reads_text:
                self._notices.count(kinds.NEARLY_JSON, text)
                return False
            found = objects.numbers_of(record, is_dict=True)
            is_meant = objects.holds_metrics(record) and ("step" in record or "epoch" in record or found.is_whole)
            if found.problem is None and is_meant:
                self._take("Dict", [Reading(found.step, found.values)], text, elapsed)
            elif found.problem == kinds.STEP_UNUSABLE:
                self._notices.count(found.problem, text)
            return False
        if "\ufffd" not in body and objects.is_nearly_json(body):
            self._notices.count(kinds.NEARLY_JSON, text)
            return False
        return None

    def _of_higher_rank(self, body: str, rank: int) -> bool | None:
        records, _ = objects.parse(body)
        if any(map(objects.holds_metrics, records)) or (not records and objects.parse_dict(body)):
            self._notices.count(kinds.HIGHER_RANK, body, subject=f"rank {rank}")
            return False
        return None

    def _behind_unknown(self, text: str, body: str, elapsed: float) -> bool | None:
        """Text in front of an object: another form's line, or a prefix that is not known."""
        if self._reads_text and len(text) <= MAX_LINE and self._forms_of(text.lstrip("\r"), elapsed) is not None:
            return False
        if not body.endswith("}"):
            if '{"' in body and any(map(objects.holds_metrics, objects.parse(body)[0])):
                self._notices.count(kinds.UNKNOWN_PREFIX, text)
            return None
        records, is_all = objects.parse(body)
        if not is_all and "'" in body[:256]:
            record = objects.parse_dict(body)
            records, is_all = ([record], True) if record is not None else ([], False)
        if is_all and len(records) == 1 and self._reads_text:
            step = step_alone(text[: text.find("{")])
            if step is not None and self._behind_step(step, records[0], text, elapsed):
                return False
        if is_all and any(map(objects.holds_metrics, records)):
            self._notices.count(kinds.UNKNOWN_PREFIX, text)
            return False
        return None

    def _behind_step(self, step: int, record: Mapping[str, object], text: str, elapsed: float) -> bool:
        """Read an object behind its step: `Epoch 3/10: {'loss': 0.5}`. False if it is none of metrics alone."""
        found = objects.numbers_of(record, is_dict=True)
        if found.problem is not None or found.step is not None or not objects.holds_metrics(record):
            return False
        self._take("Dict", [Reading(step, found.values)], text, elapsed)
        return True

    # --- text --------------------------------------------------------------------------------------------------------

    def _text(self, line: bytes, text: str, elapsed: float) -> None:
        """Read a line of text: by the form that took the last line of this shape, or by the first that takes it."""
        shape = line.translate(None, _DIGITS) if len(line) <= MAX_SHAPE else b""
        route = self._routes.get(shape, _UNKNOWN)
        if not self._has_table:
            if route is None:
                return
            if route is _UNKNOWN and not _may_hold_metrics(line.lower()):
                self._route(shape, None)
                return
        if not self._is_allowed():
            self._notices.count(kinds.SAMPLED, text)
            return
        if isinstance(route, _Route):
            readings = route.reader.read(text[route.offset :], elapsed)
            if readings is not None and not readings:
                self._headed(text[route.offset :])
            if readings is not None or route.reader is self._pairs:
                self._take(type(route.reader).__name__, readings or (), text, elapsed)
                return
        self._first_reader(shape, text, elapsed)

    def _first_reader(self, shape: bytes, text: str, elapsed: float) -> None:
        bare, rank = prefixes.cut_rank(text)
        reader = None if rank else self._forms_of(bare, elapsed)
        if reader is None and not rank:
            line = prefixes.cut(bare)
            rank = line.rank if rank is None else rank
            if line.text != bare and not rank:
                bare = line.text
                reader = self._forms_of(bare, elapsed)
        if rank:
            if self._has_rank_0 and Pairs.names_metrics(bare):
                self._notices.count(kinds.HIGHER_RANK, text, subject=f"rank {rank}")
            return
        self._has_rank_0 = self._has_rank_0 or rank == 0
        if reader is None:
            unread = self._pairs.unread
            readings = self._pairs.read(bare, elapsed)
            self._take(Pairs.__name__, readings or [], text, elapsed)
            if readings is None and self._pairs.unread == unread:
                self._route(shape, None)
                return
            reader = self._pairs
        if rank is None:  # a label has a number, and a shape has none
            self._route(shape, _Route(reader, len(text) - len(bare)))

    def _route(self, shape: bytes, route: _Route | None) -> None:
        if shape:
            if len(self._routes) >= MAX_SHAPES:
                self._routes.clear()
                self._dull = {b""}
            self._routes[shape] = route
            if route is None and b"{" not in shape:
                self._dull.add(shape.rstrip(b"\n"))
            else:
                self._dull.discard(shape.rstrip(b"\n"))

    def _headed(self, text: str) -> None:
        """Note a form's line without a point: it may be the header of a table, or of lines without a step."""
        self._look_for_tables()
        self._pairs.head(text)

    def _look_for_tables(self) -> None:
        self._has_table = any(table.has_table for table in self._tables)

    def _forms_of(self, text: str, elapsed: float) -> Reader | None:
        """Offer a line to each form; returns the one that took it."""
        for reader in self._forms:
            readings = reader.read(text, elapsed)
            if readings is not None:
                if readings:
                    self._look_for_tables()
                else:
                    self._headed(text)
                self._take(type(reader).__name__, readings, text, elapsed)
                return reader
        return None

    def _take(self, form: str, readings: Sequence[Reading], text: str, elapsed: float) -> None:
        for reading in readings:
            taken = self._emit(reading, text, elapsed)
            if taken and form not in self._told:
                self._told.add(form)
                names = ", ".join(kinds.clean(name, 40) for name, _ in reading.values[:4])
                self._add_log(
                    "SUPERVISOR",
                    f"reading {names} from lines like: {kinds.clean(text.strip(), 160)}  (--metrics json: off)",
                )

    def _emit(self, reading: Reading, text: str, elapsed: float) -> bool:
        taken = False
        for step, points in self._curve.each(reading, text):
            if points:
                self._add_points(step, elapsed if reading.elapsed is None else reading.elapsed, points)
                taken = True
        return taken

    def _is_allowed(self) -> bool:
        if self._allowance < 1:
            now = time.monotonic()
            self._allowance = min(self._allowance + (now - self._refilled_at) * TEXT_RATE, TEXT_BURST)
            self._refilled_at = now
            if self._allowance < 1:
                return False
        self._allowance -= 1
        return True


def _pattern_advice(pair: str, *, has_step: bool) -> str:
    """Advice with a pattern that reads this `name: number`; `"name": number` is of an object over several lines."""
    if '"' in pair:
        return "An object over several lines is not read: print it on one line."
    reason, instead = "Lines without a step are not read by themselves.", "print a step"
    if has_step:
        reason = f"Lines are read once {TIMES} of them have had the same names, with rising steps."
        instead = "print JSON lines"
    found = re.match(r"(.*?)([ \t]*[:=][ \t]*|[ \t]+)(\S+)$", pair)
    if found is None:
        return f"{reason} Add --metrics-pattern."
    group = re.sub(r"\W+", "_", found[1]).strip("_") or "value"
    group = f"_{group}" if group[0].isdigit() else group
    written = re.escape(found[1]).replace("\\ ", " ") + found[2].replace("\t", r"\t")
    return f"{reason} Add --metrics-pattern '{written}(?P<{group}>\\S+)' or {instead}."


def _may_hold_metrics(line: bytes) -> bool:
    """Whether a lower-case line has a word of a step, a form or a frequent metric. Written out: a loop is slower."""
    return (
        b"step" in line
        or b"epoch" in line
        or b"iter" in line
        or b"batch" in line
        or b"loss" in line
        or b"acc" in line
        or b"update" in line
        or b"trial" in line
        or b"episode" in line
        or b"round" in line
        or b"gen" in line
        or b"norm" in line
        or b"it/s" in line
        or b"s/it" in line
        or b"solving" in line
        or b"time = " in line
        or b"]\t" in line
        or b":\t" in line
        or b"score" in line
        or b"reward" in line
        or b"err" in line
        or b"resid" in line
        or b"mse" in line
        or b"mae" in line
        or b"auc" in line
        or b"f1" in line
        or b"val" in line
        or b"train" in line
        or b"metric" in line
        or b"objective" in line
        or b"ep " in line
        or b"[" in line[:2]
        or b"|" in line[:20]
        or b"/" in line[:12]
    )
