import os
from dataclasses import replace

import numpy as np
import pytest

from checkpoints.errors import UserError
from preprocessing.align import encode_jpeg
from preprocessing.items import Item
from preprocessing.sources import SHARD_BYTES, find_items, make_groups
from wildaffect.tasks.labels import is_synthetic


def touch(path, size=10):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))


def found(*sources, crops=False):
    items, problems = find_items(sources, crops=crops)
    return {item.video: item for item in items}, problems


def test_a_folder_in_the_order_of_names(tmp_path):
    for name in ("b.mp4", "a.avi", "deep/c.MOV", "d.jpg", "notes.txt", ".hidden.mp4", ".cache/x.mp4"):
        touch(tmp_path / name)
    (tmp_path / "notes.txt").write_text("a text beside the media")
    items, problems = find_items([tmp_path], crops=False)
    assert [(item.video, item.kind) for item in items] == [
        ("a", "video"),
        ("b", "video"),
        ("d", "picture"),
        ("c", "video"),
    ]
    assert all(item.name.startswith(f"{tmp_path.name}/") for item in items)
    assert problems == []


def test_a_single_file(tmp_path):
    touch(tmp_path / "one.mkv", 7)
    items, _ = found(tmp_path / "one.mkv")
    assert items["one"].size == 7
    assert items["one"].name == "one.mkv"


def test_files_of_one_name(tmp_path):
    touch(tmp_path / "x" / "a.mkv")
    touch(tmp_path / "y" / "a.mkv")
    items, problems = found(tmp_path / "x" / "a.mkv", tmp_path / "y" / "a.mkv")
    assert [item.name for item in items.values()] == ["a.mkv", "a.mkv~2"]
    assert len(problems) == 2


def test_numbered_pictures_are_the_frames_of_a_video(tmp_path):
    for k in (1, 2, 5):
        touch(tmp_path / "clip" / f"{k:05d}.jpg")
    for k in (1, 2, 10):
        touch(tmp_path / "loose" / f"{k}.jpg")  # AffectNet's second form counts so; they are pictures of their own
    items, _ = found(tmp_path)
    assert items["clip"].kind == "frames"
    assert {video for video, item in items.items() if item.kind == "picture"} == {"1", "2", "10"}


def test_one_stem_in_several_folders(tmp_path):
    for name in ("x/a.mp4", "y/a.mp4", "y/b.mp4", "y/b.avi"):
        touch(tmp_path / name)
    items, problems = found(tmp_path)
    assert set(items) == {"x__a", "y__a", "y__b.mp4", "y__b.avi"}
    assert len(problems) == 4
    assert all("same name" in problem["problem"] for problem in problems)


def test_one_name_in_several_sources(tmp_path):
    for name in ("x/clips/a.mp4", "y/clips/a.mp4"):
        touch(tmp_path / name)
    items, _ = find_items([tmp_path / "x" / "clips", tmp_path / "y" / "clips"], crops=False)
    assert [item.video for item in items] == ["clips__a.mp4", "clips~2__a.mp4"]


def test_odd_names(tmp_path):
    for name in ("with space.mp4", "Zoë 日本.mp4", "line\nbreak.mp4"):
        touch(tmp_path / name)
    items, problems = found(tmp_path)
    assert set(items) == {"with space", "Zoë 日本", "line_break"}
    assert [problem["video"] for problem in problems] == ["line_break"]
    for group in make_groups([replace(item, size=SHARD_BYTES) for item in items.values()]):
        assert group.name.isascii()
        assert "/" not in group.name
        assert " " not in group.name


def test_a_name_that_is_no_text(tmp_path):
    try:
        touch(tmp_path / os.fsdecode(b"caf\xe9.mp4"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    items, problems = found(tmp_path)
    assert set(items) == {"caf?"}
    assert len(problems) == 1
    problems[0]["source"].encode()


@pytest.mark.parametrize("make", [lambda p: None, lambda p: p.mkdir(), lambda p: touch(p / "notes.txt")])
def test_missing_and_empty_sources_are_refused(tmp_path, make):
    make(tmp_path / "source")
    with pytest.raises(UserError, match="source"):
        find_items([tmp_path / "source"], crops=False)


def item(name, size, kind="video", **fields):
    return Item(name, None, f"s/{name}", kind, size, **fields)


def test_long_videos_stand_alone_and_short_ones_share():
    items = [
        item("long", SHARD_BYTES),
        *(item(f"short{k}", SHARD_BYTES // 3 + 1) for k in range(7)),
        item("p", 9, "picture"),
    ]
    groups = make_groups(items)
    sizes = sorted(len(group.items) for group in groups)
    assert sizes == [1, 1, 1, 3, 3]
    assert len({group.name for group in groups}) == len(groups)
    assert next(group for group in groups if group.items[0].video == "long").name == "long"
    assert sorted(i.video for group in groups for i in group.items) == sorted(i.video for i in items)


def test_a_digest_follows_what_its_group_holds():
    (one,), (same,), (longer,), (other,) = (
        make_groups([item("a", size, subjects=subjects)])
        for size, subjects in ((5, ()), (5, ()), (6, ()), (5, ("left",)))
    )
    assert one == same
    assert one.name == longer.name
    assert len({one.digest, longer.digest, other.digest}) == 3


def test_a_new_video_leaves_the_groups_of_long_ones(tmp_path):
    items = [item(name, SHARD_BYTES) for name in "ace"]
    before = {group.name: group.digest for group in make_groups(items)}
    after = {group.name: group.digest for group in make_groups([*items, item("b", SHARD_BYTES)])}
    assert before.items() <= after.items()


def test_synthwild_is_recognised(synthwild_tiny, tmp_path):
    assert is_synthetic(synthwild_tiny / "release")
    assert is_synthetic(synthwild_tiny / "unlabelled")
    assert is_synthetic(next((synthwild_tiny / "release").glob("* ABAW Annotations/VA*/Validation_Set")))
    assert not is_synthetic(tmp_path)


def test_pictures_with_crops(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode_jpeg(np.zeros((8, 8, 3), np.uint8)))
    items, _ = found(tmp_path, crops=True)
    assert items["a"].kind == "picture"


def test_a_link_that_leads_nowhere_is_not_overlooked(tmp_path):
    (tmp_path / "a.mp4").symlink_to(tmp_path / "annexed")
    items, _ = found(tmp_path)
    assert items["a"].size == 0


def test_a_video_is_not_called_as_the_second_person_of_another(tmp_path):
    for name in ("clip.mp4", "clip_2.mp4", "other_3.mp4", "clip_left.mp4"):
        touch(tmp_path / name)
    items, problems = find_items([tmp_path], crops=False)
    assert [item.video for item in items] == ["clip", "clip~2", "clip~left", "other_3"]
    assert "it would look like a subject of 'clip'" in problems[0]["problem"] and len(problems) == 2


def test_pictures_are_not_called_so_either_but_ready_faces_may_be(tmp_path):
    for name in ("face.jpg", "face_1.jpg", "face_02.jpg", "face_12.jpg"):
        touch(tmp_path / name)
    items, problems = find_items([tmp_path], crops=False)
    assert {item.video for item in items} == {"face", "face_1", "face_02", "face~12"} and len(problems) == 1
    items, problems = find_items([tmp_path], crops=True)
    assert {item.video for item in items} == {"face", "face_1", "face_02", "face_12"} and not problems


def test_the_names_of_a_release_are_kept(tmp_path):
    (tmp_path / "6th ABAW Annotations").mkdir()
    names = ["video45", "video45_2", "video45_2_left", "video45_3"]
    for name in names:
        touch(tmp_path / "videos" / "batch1" / f"{name}.mp4")
    items, problems = find_items([tmp_path], crops=False)
    assert [item.video for item in items] == names and not problems
