import pytest

from audit.examine import examine
from checkpoints.errors import UserError
from preprocessing.affwild2 import is_release, release_items, split_id
from wildaffect.tasks import TASKS
from wildaffect.tasks.labels import read_annotations


def test_only_left_and_right_are_subjects():
    assert split_id("video45_1") == ("video45_1", "")
    assert split_id("24-30-1920x1080-1") == ("24-30-1920x1080-1", "")
    assert split_id("10-60-1280x720_right") == ("10-60-1280x720", "right")
    assert split_id("video4_1_left") == ("video4_1", "left")


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


MTL = "image,valence,arousal,expression,aus\n"
NUMBERS = ",0.1,0.2,3" + ",0" * 12 + "\n"


def facts(root, *, crops):
    doubts = []
    items = list(release_items(root, doubts, crops=crops))
    return [(item.video, item.subjects, item.name, item.length) for item in items], doubts


def test_subjects_and_lengths_come_from_every_list(tmp_path):
    write(tmp_path / "5th ABAW Annotations/EXPR_Classification_Challenge/Train_Set/a_left.txt", "Neutral\n1\n1\n")
    write(tmp_path / "6th ABAW Annotations/VA_Estimation_Challenge/Train_Set/e.txt", "valence,arousal\n0,0\n")
    write(tmp_path / "names_of_videos_in_each_test_set/AU_test_set_release.txt", "a_right\nb\n\n")
    write(tmp_path / "test_set_examples/va.txt", "image_location,valence,arousal\nb/00002.jpg,0,0\nb/00007.jpg,0,0\n")
    write(tmp_path / "cropped/c/00001.jpg")
    write(tmp_path / "cropped/d_left/00001.jpg")
    write(tmp_path / "videos/batch1/a.mp4")
    write(tmp_path / "videos/batch2/d.avi")
    write(tmp_path / "videos/notes.txt")
    assert is_release(tmp_path)
    assert not is_release(tmp_path / "videos")
    assert facts(tmp_path, crops=False) == (
        [
            ("a", ("left", "right"), "videos/batch1/a.mp4", 2),
            ("b", ("",), "videos/b", 7),  # listed, but not there
            ("d", ("left",), "videos/batch2/d.avi", 0),
            ("e", ("",), "videos/e", 1),
        ],
        [],
    )


@pytest.mark.parametrize("folder", ["7th ABAW Annotations/MTL_Challenge", "MTL_Challenge", "7th ABAW Annotations"])
def test_a_release_of_the_mtl_challenge_alone_keeps_its_subjects(tmp_path, folder):
    write(tmp_path / folder / "train_set.txt", f"{MTL}a_left/00003.jpg{NUMBERS}a_right/00009.jpg{NUMBERS}")
    write(tmp_path / folder / "validation_set.txt", f"{MTL}b_1/00005.jpg{NUMBERS}")
    write(tmp_path / "test_set_examples/mtl.txt", f"{MTL}c_left/00004.jpg{NUMBERS}")
    for name in ("a", "b_1", "c"):
        write(tmp_path / f"videos/batch1/{name}.mp4")
    assert is_release(tmp_path)
    subjects = [(video, subjects, length) for video, subjects, _, length in facts(tmp_path, crops=False)[0]]
    assert subjects == [("a", ("left", "right"), 9), ("b_1", ("",), 5), ("c", ("left",), 4)]


def test_crops_of_a_release(tmp_path):
    write(tmp_path / "6th ABAW Annotations/VA_Estimation_Challenge/Train_Set/a.txt", "valence,arousal\n0,0\n")
    write(tmp_path / "6th ABAW Annotations/VA_Estimation_Challenge/Train_Set/gone_left.txt", "valence,arousal\n0,0\n")
    for folder in ("cropped/a", "cropped_aligned/a", "cropped_aligned/a_right", "cropped_aligned_new_50_vids/b"):
        write(tmp_path / folder / "00001.jpg")
    write(tmp_path / "videos/batch1/a.mp4")
    found, doubts = facts(tmp_path, crops=True)
    assert found == [
        ("a", ("",), "cropped_aligned/a", 1),
        ("a", ("right",), "cropped_aligned/a_right", 1),
        ("b", ("",), "cropped_aligned_new_50_vids/b", 0),
        ("gone", ("left",), "cropped_aligned/gone_left", 1),
    ]
    assert doubts == []
    clocks = [item.clock for item in release_items(tmp_path, [], crops=True)]
    assert clocks == [tmp_path / "videos/batch1/a.mp4"] * 2 + [None] * 2


@pytest.mark.parametrize("change", [str.lower, str.upper, str.title])
def test_letter_case_does_not_matter(tmp_path, change):
    """Each name of the tree is read as the editions write it, and in any other way."""
    challenge = tmp_path / change("6th ABAW Annotations") / change("VA_Estimation_Challenge")
    write(challenge / change("Train_Set") / ("a_left" + change(".txt")), "valence,arousal\n0,0\n")
    mtl = tmp_path / change("6th ABAW Annotations") / change("MTL_Challenge") / change("train_set.txt")
    write(mtl, f"{MTL}b/00003.jpg{NUMBERS}")
    write(tmp_path / change("names_of_videos_in_each_test_set") / change("Action_Unit_list.txt"), "c\n")
    write(
        tmp_path / change("test_set_examples") / change("va.txt"), "image_location,valence,arousal\nc/00002.jpg,0,0\n"
    )
    for name in ("a_left", "b", "c"):
        write(tmp_path / change("cropped_aligned") / name / "00001.jpg")
    for name in ("a", "b", "c"):
        write(tmp_path / change("videos") / change("batch1") / (name + change(".mp4")))
    assert is_release(tmp_path)
    lengths = [(video, subjects[0], length) for video, subjects, _, length in facts(tmp_path, crops=True)[0]]
    assert lengths == [("a", "left", 1), ("b", "", 3), ("c", "", 2)]
    assert [name for _, _, name, _ in facts(tmp_path, crops=False)[0]] == [
        f"{change('videos')}/{change('batch1')}/{id}{change('.mp4')}" for id in "abc"
    ]
    assert list(read_annotations(tmp_path, TASKS["va"], "Train_Set")) == ["a_left"]
    assert list(read_annotations(mtl.parent, TASKS["va"], "Train_Set")) == ["b"]


def test_ids_match_exactly_and_one_in_another_letter_case_is_named(tmp_path):
    write(tmp_path / "6th ABAW Annotations/VA_Estimation_Challenge/Train_Set/a_left.txt", "valence,arousal\n0,0\n")
    write(tmp_path / "videos/batch1/A.mp4")
    write(tmp_path / "cropped_aligned/a_Left/00001.jpg")
    for crops, ids, place, id in (
        (False, [("A", ("",)), ("a", ("left",))], "videos/batch1/A.mp4", "a"),
        (True, [("a", ("left",)), ("a_Left", ("",))], "cropped_aligned/a_Left", "a_left"),
    ):
        found, doubts = facts(tmp_path, crops=crops)
        assert [(video, subjects) for video, subjects, *_ in found] == ids
        why = f"is not the listed {id}: ids match in letter case too; rename one of them"
        assert doubts == [(place, why)]
    assert any("A.mp4 is not the listed a:" in problem for problem in examine(tmp_path).problems)


def test_of_two_videos_or_crop_folders_with_one_id_the_larger_is_taken(tmp_path):
    write(tmp_path / "6th ABAW Annotations/VA_Estimation_Challenge/Train_Set/a.txt", "valence,arousal\n0,0\n")
    write(tmp_path / "videos/batch1/a.mp4", "short")
    write(tmp_path / "videos/batch2/a.avi", "the longer one")
    write(tmp_path / "cropped_aligned/a/00001.jpg")
    for number in (1, 2):
        write(tmp_path / f"cropped_aligned_new_50_vids/a/0000{number}.jpg")
    found, doubts = facts(tmp_path, crops=False)
    assert found == [("a", ("",), "videos/batch2/a.avi", 1)]
    assert doubts == [
        ("videos/batch1/a.mp4", "is left out: videos/batch2/a.avi has the same name and is no smaller"),
    ]
    found, doubts = facts(tmp_path, crops=True)
    assert found == [("a", ("",), "cropped_aligned_new_50_vids/a", 1)]
    assert doubts[-1][0] == "cropped_aligned/a" and "cropped_aligned_new_50_vids/a has the same name" in doubts[-1][1]


@pytest.mark.parametrize("crops, there", [(True, "videos/a.mp4"), (False, "cropped/a/00001.jpg")])
def test_a_part_of_the_release_that_is_not_there_is_refused(tmp_path, crops, there):
    write(tmp_path / "6th ABAW Annotations/VA_Estimation_Challenge/Train_Set/a.txt", "valence,arousal\n0,0\n")
    write(tmp_path / there)
    with pytest.raises(UserError, match=r"has no crops.*leave out --crops" if crops else "has no videos.*pass --crops"):
        list(release_items(tmp_path, [], crops=crops))


def test_synthwild_is_a_release(synthwild_tiny):
    root = synthwild_tiny / "release"
    assert is_release(root)
    items = list(release_items(root, [], crops=False))
    assert len(items) == 14
    assert sum(len(item.subjects) == 2 for item in items) >= 2
