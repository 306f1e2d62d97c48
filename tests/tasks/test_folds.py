import pytest
from hypothesis import given
from hypothesis import strategies as st

from checkpoints.errors import UserError
from tasks.folds import base_video, group_of, grouped_folds, groups, hold_out


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
            grouped_folds(sizes, k, seed)
        return
    folds = grouped_folds(sizes, k, seed)
    assert sorted(id for fold in folds for id in fold) == sorted(sizes)
    assert all(folds)
    videos = [{base_video(id) for id in fold} for fold in folds]
    assert sum(map(len, videos)) == len(set.union(*videos))
    assert folds == grouped_folds(dict(reversed(sizes.items())), k, seed)


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
    totals = [sum(sizes[id] for id in fold) for fold in grouped_folds(sizes, 5)]
    assert max(totals) < 1.15 * min(totals)
