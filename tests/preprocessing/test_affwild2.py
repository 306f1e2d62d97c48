from preprocessing.affwild2 import is_release, named_subjects, release_items, split_id


def test_only_left_and_right_are_subjects():
    assert split_id("video45_1") == ("video45_1", "")
    assert split_id("24-30-1920x1080-1") == ("24-30-1920x1080-1", "")
    assert split_id("10-60-1280x720_right") == ("10-60-1280x720", "right")
    assert split_id("video4_1_left") == ("video4_1", "left")


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_subjects_come_from_every_list_of_names(tmp_path):
    write(tmp_path / "5th ABAW Annotations/EXPR_Classification_Challenge/Train_Set/a_left.txt")
    write(tmp_path / "5th ABAW Annotations/MTL_Challenge/train_set.txt")
    write(tmp_path / "names_of_videos_in_each_test_set/AU_test_set_release.txt", "a_right\nb\n\n")
    write(tmp_path / "cropped/c/00001.jpg")
    write(tmp_path / "videos/batch1/a.mp4")
    write(tmp_path / "videos/batch2/d.avi")
    write(tmp_path / "videos/notes.txt")
    assert is_release(tmp_path)
    assert not is_release(tmp_path / "videos")
    assert named_subjects(tmp_path) == {"a": {"left", "right"}, "b": {""}, "c": {""}}
    items = {item.video: item.subjects for item in release_items(tmp_path, crops=False)}
    assert items == {"a": ("left", "right"), "d": ("",)}


def test_crops_of_a_release(tmp_path):
    write(tmp_path / "6th ABAW Annotations/VA_Estimation_Challenge/Train_Set/a.txt")
    for folder in ("cropped/a", "cropped_aligned/a", "cropped_aligned/a_right", "cropped_aligned_new_50_vids/b"):
        write(tmp_path / folder / "00001.jpg")
    write(tmp_path / "videos/batch1/a.mp4")
    items = list(release_items(tmp_path, crops=True))
    assert [(item.video, item.subjects, item.name) for item in items] == [
        ("a", ("",), "cropped_aligned/a"),
        ("a", ("right",), "cropped_aligned/a_right"),
        ("b", ("",), "cropped_aligned_new_50_vids/b"),
    ]
    assert items[0].clock == tmp_path / "videos/batch1/a.mp4"
    assert items[2].clock is None


def test_synthwild_is_a_release(synthwild_tiny):
    root = synthwild_tiny / "release"
    assert is_release(root)
    items = list(release_items(root, crops=False))
    assert len(items) == 14
    assert sum(len(item.subjects) == 2 for item in items) >= 2
