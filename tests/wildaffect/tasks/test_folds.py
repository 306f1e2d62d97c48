import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoints.errors import UserError
from wildaffect.tasks import TASKS
from wildaffect.tasks.class_map import ClassMap
from wildaffect.tasks.folds import (
    base_video,
    group_of,
    grouped_folds,
    groups,
    hold_out,
    label_counts,
    read_ids,
    release_folds,
    without,
)
from wildaffect.tasks.labels import TRAIN, all_annotations, read_annotations


def as_counts(sizes):
    return {id: np.array([size]) for id, size in sizes.items()}


def test_base_video_strips_the_subject_only():
    assert base_video("10-60-1280x720_right") == "10-60-1280x720"
    assert base_video("video45_1") == "video45_1"
    assert base_video("24-30-1920x1080-1") == "24-30-1920x1080-1"


def test_groups_join_parts_and_subjects():
    assert group_of("24-30-1920x1080-1") == group_of("24-30-1920x1080-2_left") == "24-30-1920x1080"
    assert group_of("video45_1") == group_of("video45_6") == "video45"
    assert group_of("102") == "102" and group_of("1-30-1280x720") == "1-30-1280x720"
    assert groups(["a", "a_left", "b"]) == {"a": ["a", "a_left"], "b": ["b"]}
    assert groups(["a", "b", "c"], {"a": "ann", "c": "ann"}) == {"a": ["a", "c"], "b": ["b"]}


names = st.builds(lambda v, s: f"{v}{s}", st.integers(1, 40), st.sampled_from(["", "_left", "_right"]))


@given(st.dictionaries(names, st.integers(0, 10_000), min_size=1), st.integers(2, 5), st.integers(0, 5))
def test_folds_partition_the_ids_and_keep_groups_whole(sizes, k, seed):
    if len(groups(sizes)) < k:
        with pytest.raises(UserError, match="folds need at least"):
            grouped_folds(as_counts(sizes), k, seed)
        return
    folds = grouped_folds(as_counts(sizes), k, seed)
    assert sorted(id for fold in folds for id in fold) == sorted(sizes)
    assert all(folds)
    videos = [{base_video(id) for id in fold} for fold in folds]
    assert sum(map(len, videos)) == len(set.union(*videos))
    assert folds == grouped_folds(dict(reversed(as_counts(sizes).items())), k, seed)


@given(st.dictionaries(names, st.integers(0, 10_000), min_size=1), st.integers(0, 5))
def test_hold_out(sizes, seed):
    if len(groups(sizes)) < 2:
        with pytest.raises(UserError, match="at least two"):
            hold_out(sizes, 0.1, seed)
        return
    kept, held = hold_out(sizes, 0.1, seed)
    assert kept and held and sorted(kept + held) == sorted(sizes)
    assert not {base_video(id) for id in kept} & {base_video(id) for id in held}


def test_folds_are_balanced():
    sizes = {f"v{i}": 100 + 37 * (i % 11) for i in range(60)}
    totals = [sum(sizes[id] for id in fold) for fold in grouped_folds(as_counts(sizes), 5)]
    assert max(totals) < 1.15 * min(totals)


def test_folds_are_stratified():
    """A label that few videos have is spread over the folds, which equal sizes alone would not ensure."""
    rng = np.random.default_rng(0)
    counts = {f"v{i}": np.array([rng.integers(100, 1000), 200 * (i % 12 == 0), 50 * (i % 20 == 7)]) for i in range(60)}
    for seed in range(3):
        folds = grouped_folds(counts, 5, seed)
        totals = np.array([np.sum([counts[id] for id in fold], axis=0) for fold in folds])
        assert (totals[:, 1] == 200).all()  # five videos have it
        assert sorted(totals[:, 2]) == [0, 0, 50, 50, 50]
        assert totals[:, 0].max() < 1.2 * totals[:, 0].min()
    assert grouped_folds(counts, 5, 0) != grouped_folds(counts, 5, 1)


@pytest.fixture(scope="module")
def release(synthwild_tiny):
    return synthwild_tiny / "release"


def test_the_folds_of_a_release_are_those_of_every_task(release):
    folds = release_folds(release, 3)
    of = {id: number for number, fold in enumerate(folds) for id in fold}
    annotated = {id for by_split in all_annotations(release).values() for ids in by_split.values() for id in ids}
    assert of.keys() == annotated
    assert all(len({of[id] for id in members}) == 1 for members in groups(of).values())


def test_label_counts(release):
    annotations = all_annotations(release)
    counts = label_counts(annotations)
    id, track = next(iter(annotations["expr"]["Train_Set"].items()))
    assert counts[id][4:12].tolist() == [int((track.labels[track.mask] == value).sum()) for value in range(8)]
    assert {len(row) for row in counts.values()} == {4 + 8 + 13}
    assert sum(row[-1] for row in counts.values()) == sum(
        track.mask.any(1).sum() for by_id in annotations["au"].values() for track in by_id.values()
    )


def test_lists_of_ids(tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("# held out\na\nvideo45_1  # a part\n\n")
    assert read_ids(path) == ["a", "video45_1"]
    assert without(["a_left", "b", "video45_6", "ab"], read_ids(path)) == ["b", "ab"]
    path.write_text("# nothing\n")
    with pytest.raises(UserError, match="lists no id"):
        read_ids(path)
    with pytest.raises(UserError, match="does not exist"):
        read_ids(tmp_path / "none.txt")


def test_a_tasks_folder_has_the_folds_of_its_release(synthwild_tiny):
    root = synthwild_tiny / "release"
    (annotations,) = (path for path in root.iterdir() if "annotations" in path.name.lower())
    (folder,) = (path for path in annotations.iterdir() if path.name.startswith("VA"))
    assert release_folds(folder, 2) == release_folds(root, 2)
    assert read_annotations(folder, TASKS["expr"], TRAIN) == {}  # and is nobody else's


def test_folds_of_a_table_know_what_its_reader_knows(tmp_path):
    """Class map and spans; and columns of other tasks' names that hold no labels are nobody's."""
    path, spans = tmp_path / "labels.csv", dict.fromkeys("abcd", (1, 9))
    path.write_text("video,label,valence\na,bored,high\nb,happy,low\nc,bored,high\nd,happy,low\n")
    (tmp_path / "map.json").write_text('{"bored": "Other"}')
    names = ClassMap(tmp_path / "map.json")
    folds = release_folds(path, 2, class_map=names, spans=spans, required=("expr",))
    assert sorted(len({"a", "c"} & set(fold)) for fold in folds) == [1, 1]
    with pytest.raises(UserError, match="arousal"):
        release_folds(path, 2, class_map=names, spans=spans)
    with pytest.raises(UserError, match="bored"):
        release_folds(path, 2, spans=spans, required=("expr",))
