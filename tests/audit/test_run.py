import shutil

import numpy as np
import pytest

from audit.examine import PUBLISHED, examine, known_people
from audit.fold_files import make_folds
from audit.leakage import TEST
from audit.summary import write_audit_page
from checkpoints.artifact import read_json
from checkpoints.errors import UserError
from preprocessing.align import encode_jpeg
from preprocessing.run import Config as Preprocess
from preprocessing.run import run as preprocess
from preprocessing.video import read_frames
from synthwild import release as release_files
from synthwild import run as corpus
from synthwild.release import players, write_labels
from tests import processes
from tests.preprocessing.movies import pattern, write_movie
from wildaffect.tasks.labels import TRAIN, VALIDATION


@pytest.fixture(scope="module")
def found(synthwild_tiny):
    return examine(synthwild_tiny / "release")


def test_counts(found, synthwild_tiny):
    videos = read_json(synthwild_tiny / "synthwild.json")["videos"]
    labelled = [video for video in videos.values() if video["file"].startswith("release/")]
    assert found.videos == len(labelled)
    assert sum(found.frames.values()) == sum(video["frames"] for video in labelled)
    for task in ("va", "expr", "au"):
        for split in (TRAIN, VALIDATION):
            members = [
                (id, video)
                for video in labelled
                for id, subject in video["subjects"].items()
                if subject["splits"].get(task) == split
            ]
            entry = found.splits[f"{task} {split}"]
            assert entry.files == len(members)
            assert entry.lines == sum(video["lines"] for _, video in members)
            assert 0 < entry.annotated < entry.lines
            differences = [video["lines"] - video["frames"] for _, video in members]
            assert sum(entry.difference.values()) == len(members)
            assert entry.difference.get("+1", 0) == differences.count(1)
            assert entry.beyond <= sum(max(d, 0) for d in differences)
            assert len(entry.checksum) == 64
    assert found.synthetic
    assert found.splits["va Train_Set"].published == (0, 0)  # never beside Aff-Wild2's numbers
    assert found.problems == []


def test_crops(found, synthwild_tiny):
    release = synthwild_tiny / "release"
    pictures = len(list((release / "cropped_aligned").rglob("*.jpg")))
    assert sum(found.crops["cropped_aligned"].values()) == pictures
    # Frames of every task's training files, counted by hand.
    folder = next(release.glob("*Annotations")) / "EXPR_Recognition_Challenge" / "Train_Set"
    missing = 0
    for path in folder.glob("*.txt"):
        for frame, line in enumerate(path.read_text().splitlines()[1:], start=1):
            crop = release / "cropped_aligned" / path.stem / f"{frame:05d}.jpg"
            missing += line.strip() != "-1" and not crop.exists()
    assert found.splits["expr Train_Set"].without_crop == missing


def test_a_clean_corpus_leaks_nothing(found):
    assert len(found.leaks) == 3 * 6 + 3 + 3 * 3  # training with all others, validation with validation and test
    sharing = [(leak.train[1], leak.evaluated[1]) for leak in found.leaks if leak.videos or leak.people]
    assert set(sharing) == {(VALIDATION, VALIDATION)}  # the tasks' validation splits have videos in common


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    """The labels of a leaky corpus, without its videos."""
    root = tmp_path_factory.mktemp("leaky") / "tiny"
    (root / "release" / "videos").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "check_folder", lambda *_: False)
        patch.setattr(
            release_files, "make_video", lambda out, _figure, _sound, video: write_labels(out, video, players(video))
        )
        corpus.generate(root, corpus.Config(size="tiny", leaky=True))
    return root / "release"


def test_a_leaky_corpus_is_found_out(leaky):
    videos = read_json(leaky.parent / "synthwild.json")["videos"]
    labelled = [video for video in videos.values() if video["file"].startswith("release/")]
    leaks = {(leak.train, leak.evaluated): leak for leak in examine(leaky).leaks}
    shared = 0
    for task, other in (("expr", "va"), ("va", "expr"), ("au", "expr")):
        leak = leaks[(task, TRAIN), (other, VALIDATION)]
        expected = sorted(
            id
            for video in labelled
            for id, subject in video["subjects"].items()
            if subject["splits"].get(task) == TRAIN and subject["splits"].get(other) == VALIDATION
        )
        assert leak.ids == expected
        assert len(leak.people) >= len({id.split("_left")[0].split("_right")[0] for id in expected}) > 0
        shared += len(expected)
    assert shared
    # One subject of a video in training, the other in validation, within one task.
    within = leaks[("expr", TRAIN), ("expr", VALIDATION)]
    assert within.videos
    assert within.ids == []


@pytest.fixture
def release(synthwild_tiny, tmp_path):
    """A release of annotations and two videos that a test may damage."""
    source = synthwild_tiny / "release"
    shutil.copytree(next(source.glob("*Annotations")), tmp_path / "release" / "6th ABAW Annotations")
    video = sorted((source / "videos").rglob("*.mp4"))[0]
    (tmp_path / "release" / "videos" / "batch1").mkdir(parents=True)
    shutil.copy(video, tmp_path / "release" / "videos" / "batch1" / video.name)
    return tmp_path / "release"


def test_missing_videos_and_published_counts(release):
    found = examine(release)
    assert not found.synthetic
    entry = found.splits["va Train_Set"]
    assert entry.without_video
    assert entry.published == PUBLISHED["va", TRAIN]
    assert any(f"va Train_Set: {entry.files:,} files; published" in problem for problem in found.problems)


def test_crops_after_the_last_frame(release):
    video = next((release / "videos").rglob("*.mp4"))
    last = sum(1 for _ in read_frames(video, print))
    folder = release / "cropped_aligned" / video.stem
    folder.mkdir(parents=True)
    for number in (1, last, last + 1, last + 7):
        (folder / f"{number:05d}.jpg").touch()
    assert examine(release).crops_beyond == {"cropped_aligned": {video.stem: 2}}


@pytest.mark.parametrize("line", ["0.1", "0.1,x", "0.1,0.2,0.3", "3,0"])
def test_a_malformed_line_ends_the_audit_or_is_listed(release, line):
    path = sorted((release / "6th ABAW Annotations/VA_Estimation_Challenge/Train_Set").glob("*.txt"))[0]
    before = examine(release).splits["va Train_Set"].annotated
    lines = path.read_text().splitlines()
    good = next(k for k in range(3, len(lines)) if "-5" not in lines[k])
    lines[good] = line
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=rf"{path.name}, line {good + 1}"):
        examine(release)
    found = examine(release, skip_bad=True)
    assert found.bad_lines == [f"{path.name}, line {good + 1}: {line!r}"]
    assert found.splits["va Train_Set"].annotated == before - 1


def test_both_spellings_of_the_expression_folder(release):
    annotations = release / "6th ABAW Annotations"
    before = examine(release).splits["expr Train_Set"]
    (annotations / "EXPR_Recognition_Challenge").rename(annotations / "EXPR_Classification_Challenge")
    assert examine(release).splits["expr Train_Set"] == before


def test_the_mtl_challenge(release):
    folder = release / "6th ABAW Annotations" / "MTL_Challenge"
    folder.mkdir()
    aus = ",".join(["0"] * 11)
    (folder / "train_set.txt").write_text(
        f"image,valence,arousal,expression,aus\na/00001.jpg,0.1,0.2,3,1,{aus}\na/00007.jpg,-5,-5,-1,1,{aus}\n"
    )
    found = examine(release)
    assert {name: found.splits[f"mtl/{name} Train_Set"].annotated for name in ("va", "expr", "au")} == {
        "va": 1,
        "expr": 1,
        "au": 2,
    }


@pytest.mark.parametrize("start", ["a/00002.jpg,0.1,x", "a/00002.jpg,0.1,3", "a/00001.jpg,0.1,0.2", "a,0.1,0.2", ""])
def test_a_malformed_line_of_the_mtl_challenge(release, start):
    folder = release / "6th ABAW Annotations" / "MTL_Challenge"
    folder.mkdir()
    rest = ",3,1" + ",0" * 11
    bad = start + rest if start else start
    path = folder / "train_set.txt"
    good = [f"a/0000{n}.jpg,0.1,0.2{rest}" for n in (1, 7)]
    path.write_text("\n".join(["image,valence,arousal,expression,aus", good[0], bad, good[1]]) + "\n")
    with pytest.raises(UserError, match=r"train_set\.txt"):
        examine(release)
    found = examine(release, skip_bad=True)
    assert found.bad_lines == [f"train_set.txt, line 3: {bad!r}"]
    assert found.splits["mtl/au Train_Set"].annotated == 2


@pytest.fixture
def mtl(tmp_path):
    """A release of the MTL challenge alone, with crops and a video of four frames."""
    root = tmp_path / "mtl"
    (root / "videos").mkdir(parents=True)
    write_movie(root / "videos" / "a.mp4", [pattern(k) for k in range(4)])
    for place in ("a/00001", "a/00003", "video45_1/00002", "d_left/00001"):
        (root / "cropped_aligned" / place).parent.mkdir(parents=True, exist_ok=True)
        (root / "cropped_aligned" / f"{place}.jpg").write_bytes(encode_jpeg(np.zeros((112, 112, 3), np.uint8)))
    lists = {
        "Annotations/MTL_Challenge/train_set.txt": ("a/00001", "a/00003", "a/00009", "video45_1/00002"),
        "Annotations/MTL_Challenge/validation_set.txt": ("video45_2/00004", "c_right/00005"),
        "test_set_examples/mtl.txt": ("d_left/00001", "c_left/00002"),
    }
    for name, places in lists.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        lines = ["image,valence,arousal,expression,aus", *(f"{place}.jpg,0.1,0.2,3" + ",0" * 12 for place in places)]
        (root / name).write_text("\n".join(lines) + "\n")
    return root


def test_a_release_of_the_mtl_challenge_alone(mtl, tmp_path):
    found = examine(mtl)
    train, test = found.splits["mtl/expr Train_Set"], found.splits["mtl Test_Set"]
    assert (train.files, train.recordings, train.annotated) == (2, 2, 4)
    assert (train.without_video, train.beyond, train.without_crop) == (["video45_1"], 1, 1)
    assert train.difference == {}  # it lists single frames
    assert (test.files, test.annotated, test.without_crop) == (2, 2, 1)
    assert found.never_found == ["c_left", "c_right", "video45_2"]
    shared = {(leak.train, leak.evaluated): leak.videos for leak in found.leaks}
    parts = [("mtl", part) for part in (TRAIN, VALIDATION, TEST)]
    assert shared == {(parts[0], parts[1]): ["video45"], (parts[0], parts[2]): [], (parts[1], parts[2]): ["c"]}
    write_audit_page(tmp_path / "page.html", found)
    make_folds(mtl, tmp_path / "folds", 2, 0, None)
    lists = {path.stem: path.read_text().split("\n")[1:-1] for path in (tmp_path / "folds/leave_out").glob("*.txt")}
    assert lists["mtl_test"] == ["c_left", "c_right", "d_left"]
    assert lists["va_validation"] == ["c_left", "c_right", "video45_1", "video45_2"]


@pytest.mark.parametrize("clock", [True, False])
def test_a_store_of_crops_does_not_say_how_long_the_videos_are(mtl, clock, tmp_path):
    """Without a clock the store ends with the last crop; four frames are what is decoded or what the clock says."""
    (tmp_path / "videos").mkdir()
    if not clock:
        (mtl / "videos").rename(tmp_path / "videos" / "kept")
    preprocess(Preprocess(source=[str(mtl)], out=tmp_path / "store", crops=True, workers=1, framing="arcface"))
    if not clock:
        (tmp_path / "videos" / "kept").rename(mtl / "videos")
    found = examine(mtl, faces=tmp_path / "store")
    assert found.frames == {"a": 4}
    assert found.never_found == ["c_left", "c_right", "video45_2"]


def test_of_two_videos_of_one_name_one_is_a_problem(release):
    video = next((release / "videos").rglob("*.mp4"))
    (release / "videos" / "batch2").mkdir()
    (release / "videos" / "batch2" / video.name).write_bytes(b"smaller")
    found = examine(release)
    assert found.videos == len(found.frames) == 1
    assert f"videos/batch2/{video.name} is left out: videos/batch1/{video.name} has the same name" in str(
        found.problems
    )


def test_identities_from_a_file(release, tmp_path):
    folder = release / "6th ABAW Annotations" / "AU_Detection_Challenge"
    one = sorted((folder / "Train_Set").glob("*.txt"))[0].stem
    other = sorted((folder / "Validation_Set").glob("*.txt"))[0].stem
    (tmp_path / "people.csv").write_text(f"id,identity\n{one},anna\n{other},anna\n")
    found = examine(release, identities=tmp_path / "people.csv")
    leak = next(leak for leak in found.leaks if (leak.train, leak.evaluated) == (("au", TRAIN), ("au", VALIDATION)))
    assert (leak.ids, leak.people) == ([], ["anna"])


def test_an_endless_id_does_not_fill_the_message(tmp_path):
    (tmp_path / "people.csv").write_text(f"id,identity\n{'9' * 5000},anna\n")
    with pytest.raises(UserError, match="1 ids are in no split") as error:
        known_people(tmp_path / "people.csv", tmp_path, ["a"])
    assert len(str(error.value).replace(str(tmp_path), "")) < 200


def test_refusals(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        examine(tmp_path / "none")
    with pytest.raises(UserError, match="not an Aff-Wild2 release"):
        examine(tmp_path)


def test_the_command(leaky, tmp_path):
    arguments = ["--affwild2", leaky, "--json", tmp_path / "a.json", "--page", tmp_path / "a.html"]
    done = processes.run("audit/run.py", *arguments)
    assert done.returncode == 0, done.stderr
    assert "Leakage" in done.stdout
    content = read_json(tmp_path / "a.json")
    assert set(content["splits"]) >= {"va Train_Set", "expr Validation_Set", "au Test_Set"}
    assert any(leak["videos"] for leak in content["leaks"])
    assert "data:image/png" in (tmp_path / "a.html").read_text()
