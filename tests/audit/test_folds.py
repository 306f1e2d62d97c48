import csv
import sys

import pytest

from audit import folds
from checkpoints.errors import UserError
from wildaffect.tasks.folds import group_of, read_ids, release_folds
from wildaffect.tasks.labels import VALIDATION, all_annotations


@pytest.fixture
def command(monkeypatch):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["folds.py", *map(str, arguments)])
        folds.main()

    return run


def test_one_set_of_folds_and_what_to_leave_out(command, synthwild_tiny, tmp_path, capsys):
    release = synthwild_tiny / "release"
    command("--affwild2", release, "--out", tmp_path, "--folds", 3)
    with (tmp_path / "folds.csv").open() as file:
        rows = list(csv.DictReader(file))
    by_fold = [sorted(row["id"] for row in rows if row["fold"] == str(k)) for k in range(3)]
    assert by_fold == release_folds(release, 3)  # what temporal/run.py --folds 3 takes
    annotations = all_annotations(release)
    for row in rows:
        assert {task: row[task] for task in annotations} == {
            task: next((split for split in by_split if row["id"] in by_split[split]), "")
            for task, by_split in annotations.items()
        }
    left_out = {path.stem: read_ids(path) for path in (tmp_path / "leave_out").iterdir()}
    assert left_out.keys() >= {"fold0", "va_validation", "expr_test", "all_validation"}
    judged = {group_of(id) for id in annotations["va"][VALIDATION]}
    assert {group_of(id) for id in left_out["va_validation"]} == judged
    assert set(left_out["fold1"]) >= set(by_fold[1])
    assert "fold 2:" in capsys.readouterr().out


def test_people_stay_together(command, synthwild_tiny, tmp_path):
    release = synthwild_tiny / "release"
    ids = sorted(id for by_split in all_annotations(release).values() for part in by_split.values() for id in part)
    alone = [id for id in ids if sum(group_of(other) == group_of(id) for other in set(ids)) == 1]
    people = tmp_path / "people.csv"
    people.write_text("id,identity\n" + "".join(f"{id},ann\n" for id in {alone[0], alone[-1]}))
    command("--affwild2", release, "--out", tmp_path, "--folds", 3, "--identities", people)
    with (tmp_path / "folds.csv").open() as file:
        fold = {row["id"]: row["fold"] for row in csv.DictReader(file)}
    assert fold[alone[0]] == fold[alone[-1]]
    listed = read_ids(tmp_path / "leave_out" / f"fold{fold[alone[0]]}.txt")
    assert {alone[0], alone[-1]} <= set(listed)


def test_no_annotations(command, tmp_path):
    (tmp_path / "videos").mkdir()
    with pytest.raises(UserError, match="holds no annotations"):
        command("--affwild2", tmp_path, "--out", tmp_path / "o")
