"""Prints the audit, and writes it as an HTML page."""

from pathlib import Path

from audit.findings import Audit
from audit.leakage import draw_leaks
from checkpoints.errors import some
from wildaffect.report.formats import text_of
from wildaffect.report.page import SYNTHETIC_NOTE, Figure, Note, Section, Table, write_page

SHOWN = 12
"""Number of names to list."""


def sections(found: Audit) -> list[Section]:
    """The audit as tables and notes."""
    count = len(found.bad_lines)
    skipped = [f"{count} malformed lines were skipped:", *found.bad_lines[:200]] if count else []
    return [
        _files(found),
        _splits(found),
        _classes(found),
        _fit(found),
        _leaks(found),
        Section("Problems", [*found.problems[:50], *skipped] or ["None."]),
    ]


def _files(found: Audit) -> Section:
    rows = [["videos", found.videos, sum(found.frames.values())]]
    rows += [[f"{name}/", len(ids), sum(ids.values())] for name, ids in found.crops.items()]
    blocks: list[str | Table] = [Table(["", "videos or folders", "frames or pictures"], rows)]
    for name, ids in found.crops_beyond.items():
        if ids:
            late = sum(ids.values())
            blocks.append(f"{name}/: {late} crops are after the last frame of their video: {some([*ids], SHOWN)}")
    return Section("Files", blocks)


def _splits(found: Audit) -> Section:
    published = [] if found.synthetic else ["published files", "published annotated"]
    header = ["split", "files", "recordings", "lines", "annotated", *published, "edition"]
    rows = []
    for name, split in found.splits.items():
        known = split.published if published else ()
        edition = split.checksum[:12] or None
        rows.append([name, split.files, split.recordings, split.lines, split.annotated, *known, edition])
    text = (
        "Recordings: distinct videos; files of one video count once. Annotated: frames with at least one annotated "
        "number (in a test split, frames listed in the example file). Edition: a checksum of the label files."
    )
    return Section("Splits", [Table(header, rows, text)])


def _classes(found: Audit) -> Section:
    blocks: list[str | Table] = []
    for name, split in found.splits.items():
        if split.counts:
            total = [split.elements.get(column, split.elements.get("expression", 0)) for column in split.counts]
            rows = [
                [column, count, f"{count / max(of, 1):.1%}"]
                for (column, count), of in zip(split.counts.items(), total, strict=True)
            ]
            blocks.append(Table([name, "frames", "of the annotated"], rows))
    return Section("Labels", blocks or ["No labels."])


def _fit(found: Audit) -> Section:
    rows = []
    for name, split in found.splits.items():
        order = sorted(split.difference.items(), key=lambda item: int(item[0]))
        difference = ", ".join(f"{value}: {count}" for value, count in order)
        rows.append([name, difference or None, split.beyond, split.without_crop, len(split.without_video)])
    header = [
        "split",
        "lines minus frames: files",
        "annotated after the last frame",
        "annotated without a crop",
        "no video",
    ]
    blocks: list[str | Table] = [Table(header, rows, "Where labels, videos and crops do not match")]
    for name, files in found.difference.items():
        large = [f"{id} ({value:+d})" for id, value in files.items() if abs(value) > 2]
        if large:
            blocks.append(f"{name}: lines and frames differ by more than two: {some(large, SHOWN)}")
    if found.never_found:
        blocks.append(
            f"{len(found.never_found)} listed subjects have no face in any frame: {some(found.never_found, SHOWN)}"
        )
    return Section("Labels against videos and crops", blocks)


def _leaks(found: Audit) -> Section:
    if not found.leaks:
        return Section("Leakage", ["There are no two splits to compare."])
    rows = []
    for leak in found.leaks:
        if leak.videos or leak.people:
            names = some(leak.ids or leak.videos, 4)
            shared = [len(leak.ids), len(leak.videos), len(leak.people)]
            rows.append([" ".join(leak.train), " ".join(leak.evaluated), *shared, names])
    picture = Figure(draw_leaks(found.leaks), "Number of evaluated recordings that are also in the other split")
    if not rows:
        none = "No recording and no known person is in two splits of which one is evaluated."
        return Section("Leakage", [none, picture])
    remark = Note(
        "What was trained on the first split, or chosen on it, has seen recordings of the second, so its score there "
        "says nothing about new people. Exclude these recordings (audit/folds.py lists them), or report the overlap.",
        "warning",
    )
    header = ["trained or chosen on", "evaluated on", "same files", "same recordings", "same people", "which"]
    return Section("Leakage", [remark, picture, Table(header, rows)])


def print_audit(found: Audit) -> None:
    """Print the tables."""
    for section in sections(found):
        print(f"\n{section.title}\n{'-' * len(section.title)}")
        for block in section.blocks:
            if isinstance(block, Table):
                _print_table(block)
            elif isinstance(block, Note):
                print(block.text)
            elif isinstance(block, str):
                print(block)


def _print_table(table: Table) -> None:
    cells = [list(table.header), *([text_of(value) for value in row] for row in table.rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(table.header))]
    for row in cells:
        first, *others = (
            text.ljust(w) if k == 0 else text.rjust(w) for k, (text, w) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())
    if table.caption:
        print(f"({table.caption})")
    print()


def write_audit_page(path: Path, found: Audit) -> None:
    """Write the audit as one HTML file."""
    note = SYNTHETIC_NOTE if found.synthetic else ""
    write_page(path, "Audit of an Aff-Wild2 release", sections(found), note=note)
