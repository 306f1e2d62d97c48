import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from audit.examine import PUBLISHED, examine
from checkpoints.artifact import read_json
from checkpoints.errors import UserError
from preprocessing.video import read_frames
from synthwild.run import Config as Corpus
from synthwild.run import generate
from wildaffect.tasks.labels import TRAIN, VALIDATION

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def found(synthwild_tiny):
    return examine(synthwild_tiny / "release")


def test_counts(found, synthwild_tiny):
    corpus = read_json(synthwild_tiny / "synthwild.json")["videos"]
    labelled = [video for video in corpus.values() if video["file"].startswith("release/")]
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
    assert len(found.leaks) == 18
    assert not any(leak.videos or leak.people for leak in found.leaks)


@pytest.fixture(scope="module")
def leaky(tmp_path_factory):
    return generate(tmp_path_factory.mktemp("leaky") / "tiny", Corpus(size="tiny", leaky=True)) / "release"


def test_a_leaky_corpus_is_found_out(leaky):
    corpus = read_json(leaky.parent / "synthwild.json")["videos"]
    labelled = [video for video in corpus.values() if video["file"].startswith("release/")]
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


def test_identities_from_a_file(release, tmp_path):
    folder = release / "6th ABAW Annotations" / "AU_Detection_Challenge"
    one = sorted((folder / "Train_Set").glob("*.txt"))[0].stem
    other = sorted((folder / "Validation_Set").glob("*.txt"))[0].stem
    (tmp_path / "people.csv").write_text(f"id,identity\n{one},anna\n{other},anna\n")
    found = examine(release, identities=tmp_path / "people.csv")
    leak = next(leak for leak in found.leaks if (leak.train, leak.evaluated) == (("au", TRAIN), ("au", VALIDATION)))
    assert (leak.ids, leak.people) == ([], ["anna"])


def test_refusals(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        examine(tmp_path / "none")
    with pytest.raises(UserError, match="not an Aff-Wild2 release"):
        examine(tmp_path)


def test_the_command(leaky, tmp_path):
    arguments = ["--affwild2", str(leaky), "--json", str(tmp_path / "a.json"), "--page", str(tmp_path / "a.html")]
    done = subprocess.run(
        [sys.executable, "audit/run.py", *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Leakage" in done.stdout
    content = read_json(tmp_path / "a.json")
    assert set(content["splits"]) >= {"va Train_Set", "expr Validation_Set", "au Test_Set"}
    assert any(leak["videos"] for leak in content["leaks"])
    assert "data:image/png" in (tmp_path / "a.html").read_text()
