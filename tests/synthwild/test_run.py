"""The corpus as a whole: the release's tree, its irregularities, determinism."""

import hashlib
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from checkpoints.artifact import read_json
from checkpoints.errors import UserError
from synthwild import release, run
from synthwild.plan import plan
from synthwild.run import Config, generate
from tests import processes
from wildaffect.tasks import AUS, EXPRESSIONS

ANNOTATIONS = "6th ABAW Annotations"
FOLDERS = {"va": "VA_Estimation_Challenge", "expr": "EXPR_Recognition_Challenge", "au": "AU_Detection_Challenge"}
HEADERS = {"va": "valence,arousal", "expr": ",".join(EXPRESSIONS), "au": ",".join(AUS)}
SPLITS = ("Train_Set", "Validation_Set")
LISTS = ("synthwild.json", "release/names_of_videos", "release/test_set_examples")


def files(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def label_files(root: Path, task: str) -> dict[str, list[Path]]:
    found = {split: sorted((root / "release" / ANNOTATIONS / FOLDERS[task] / split).glob("*.txt")) for split in SPLITS}
    return found | {"Test_Set": sorted((root / "answers" / task).glob("*.txt"))}


def read(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)


def videos(root: Path) -> dict[str, dict]:
    return read_json(root / "synthwild.json")["videos"]


def test_tree_is_the_releases(synthwild_tiny: Path) -> None:
    release = synthwild_tiny / "release"
    assert {p.name for p in synthwild_tiny.iterdir()} == {"release", "answers", "unlabelled", "synthwild.json"}
    assert {p.name for p in release.iterdir()} == {
        "videos",
        "cropped",
        "cropped_aligned",
        ANNOTATIONS,
        "names_of_videos_in_each_test_set",
        "test_set_examples",
    }
    assert {p.name for p in (release / "videos").iterdir()} == {"batch1", "batch2"}
    assert {p.suffix for p in (release / "videos").glob("*/*")} == {".mp4", ".avi"}
    assert {p.name for p in (release / ANNOTATIONS).iterdir()} == set(FOLDERS.values())
    for folder in (release / ANNOTATIONS).iterdir():
        assert {p.name for p in folder.iterdir()} == set(SPLITS)
    assert {p.name for p in (release / "names_of_videos_in_each_test_set").iterdir()} == {
        "Valence_Arousal_Estimation_Challenge_test_set_release.txt",
        "Expression_Recognition_Challenge_test_set_release.txt",
        "Action_Unit_Detection_Challenge_test_set_release.txt",
    }
    assert {p.name for p in (release / "test_set_examples").iterdir()} == {
        f"CVPR_6th_ABAW_{task}_test_set_example.txt" for task in ("VA", "Expr", "AU")
    }
    assert not list(synthwild_tiny.rglob("*.tmp"))


@pytest.mark.parametrize("task", ["va", "expr", "au"])
def test_label_files_have_official_headers_and_values(synthwild_tiny: Path, task: str) -> None:
    for paths in label_files(synthwild_tiny, task).values():
        assert paths
        for path in paths:
            assert path.read_text().splitlines()[0] == HEADERS[task]
            labels = read(path)
            if task == "va":
                assert labels.shape[1] == 2
                assert np.all((np.abs(labels) <= 1) | (labels == -5))
            elif task == "expr":
                assert set(np.unique(labels)) <= set(range(-1, 8))
            else:
                assert labels.shape[1] == 12
                assert set(np.unique(labels)) <= {-1, 0, 1}


def test_markers_are_per_element(synthwild_tiny: Path) -> None:
    va = np.concatenate([read(p) for p in label_files(synthwild_tiny, "va")["Train_Set"]])
    gone = va == -5
    assert (gone[:, 0] & ~gone[:, 1]).any()
    assert (gone[:, 1] & ~gone[:, 0]).any()
    assert gone.all(1).any()
    au = np.concatenate([read(p) for p in label_files(synthwild_tiny, "au")["Train_Set"]])
    assert ((au == -1).any(1) & (au >= 0).any(1)).any()
    assert any((read(p) == -1).any() for p in label_files(synthwild_tiny, "expr")["Train_Set"])


def test_every_class_and_unit_occurs_in_every_split(synthwild_tiny: Path) -> None:
    for split, paths in label_files(synthwild_tiny, "expr").items():
        counts = np.bincount(np.concatenate([read(p) for p in paths])[:, 0].astype(int) + 1, minlength=9)[1:]
        assert (counts >= 5).all(), (split, counts)
    for split, paths in label_files(synthwild_tiny, "au").items():
        au = np.concatenate([read(p) for p in paths])
        assert ((au == 1).sum(0) >= 5).all(), split
        assert ((au == 0).sum(0) >= 5).all(), split


def test_frames_lines_and_times(synthwild_tiny: Path) -> None:
    offsets, variable, rates = set(), 0, set()
    for video in videos(synthwild_tiny).values():
        with av.open(str(synthwild_tiny / video["file"])) as container:
            times = [float(frame.time) for frame in container.decode(video=0)]
        assert len(times) == video["frames"]
        gaps = np.diff(times)
        assert (gaps > 0).all()
        uneven = gaps.max() > 1.2 * gaps.min()
        assert uneven == video["variable_rate"]
        variable += uneven
        offsets.add(video["lines"] - video["frames"])
        rates.add(round(video["rate"], 3))
        for task, folder in FOLDERS.items():
            for name, subject in video["subjects"].items():
                split = subject["splits"].get(task)
                if split:
                    where = synthwild_tiny / "release" / ANNOTATIONS / folder / split
                    where = synthwild_tiny / "answers" / task if split == "Test_Set" else where
                    assert len(read(where / f"{name}.txt")) == video["lines"]
    assert offsets == {-1, 0, 1, 2}
    assert variable >= 2
    assert min(rates) == 7.5
    assert max(rates) == 30.0
    assert min(v["frames"] for v in videos(synthwild_tiny).values() if v["subjects"]) < 20


def test_subjects_and_crops(synthwild_tiny: Path) -> None:
    release = synthwild_tiny / "release"
    labelled = {n: v for n, v in videos(synthwild_tiny).items() if "unlabelled" not in v["file"]}
    suffixes = {tuple(name.removeprefix(video) for name in v["subjects"]) for video, v in labelled.items()}
    assert suffixes == {("",), ("_left", "_right"), ("", "_right")}
    names = {name for v in labelled.values() for name in v["subjects"]}
    for kind in ("cropped", "cropped_aligned"):
        assert {p.name for p in (release / kind).iterdir()} == names
    missing = 0
    for v in labelled.values():
        for k, name in enumerate(v["subjects"]):
            crops = {int(p.stem) for p in (release / "cropped_aligned" / name).glob("*.jpg")}
            assert crops == {int(p.stem) for p in (release / "cropped" / name).glob("*.jpg")}
            assert crops <= set(range(1, v["frames"] + 1))
            missing += v["frames"] - len(crops)
            if v["away"] and k == 0:
                assert not crops & set(range(v["away"][0] + 1, v["away"][1] + 1))
    assert missing > 10


def test_aligned_crops_are_112_and_box_crops_vary(synthwild_tiny: Path) -> None:
    release = synthwild_tiny / "release"
    aligned = [cv2.imread(str(p)).shape for p in sorted((release / "cropped_aligned").glob("*/00001.jpg"))]
    boxes = [cv2.imread(str(p)).shape for p in sorted((release / "cropped").glob("*/00001.jpg"))]
    assert set(aligned) == {(112, 112, 3)}
    assert len(set(boxes)) > 3


def test_test_split_is_listed_and_its_answers_are_apart(synthwild_tiny: Path) -> None:
    release = synthwild_tiny / "release"
    for task, short, long in (
        ("va", "VA", "Valence_Arousal_Estimation"),
        ("expr", "Expr", "Expression_Recognition"),
        ("au", "AU", "Action_Unit_Detection"),
    ):
        names = (release / "names_of_videos_in_each_test_set" / f"{long}_Challenge_test_set_release.txt").read_text()
        example = (release / "test_set_examples" / f"CVPR_6th_ABAW_{short}_test_set_example.txt").read_text()
        answers = label_files(synthwild_tiny, task)["Test_Set"]
        assert sorted(names.split()) == [p.stem for p in answers]
        header, *rows = example.splitlines()
        assert header == f"image_location,{HEADERS[task]}"
        lines = {p.stem: len(read(p)) for p in answers}
        expected = [f"{name}/{t:05d}.jpg" for name in names.split() for t in range(1, lines[name] + 1)]
        assert [row.split(",")[0] for row in rows] == expected
        assert not [p for name in names.split() for p in (release / ANNOTATIONS).rglob(f"{name}.txt")]


def test_splits_and_pool_share_no_person(synthwild_tiny: Path) -> None:
    owner: dict[str, str] = {}
    for video in videos(synthwild_tiny).values():
        for subject in video["subjects"].values():
            side = "+".join(sorted(set(subject["splits"].values()))) or "pool"
            assert owner.setdefault(subject["identity"], side) == side
    assert set(owner.values()) == {"Train_Set", "Validation_Set", "Test_Set", "pool"}


def test_interrupted_run_is_finished_with_the_same_bytes(
    synthwild_tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, done = release.make_video, []

    def stop_at_fifth(root: Path, figure: release.Figure, sound: bool, video: object) -> None:
        if len(done) == 4:
            (root / "release/videos/batch1/.killed.mp4.tmp").write_text("half")
            raise KeyboardInterrupt
        done.append(video)
        real(root, figure, sound, video)  # type: ignore[arg-type]

    out = tmp_path / "tiny"
    monkeypatch.setattr(run, "plan", lambda *how: plan(*how)[:7])
    monkeypatch.setattr(release, "make_video", stop_at_fifth)
    with pytest.raises(KeyboardInterrupt):
        generate(out, Config(size="tiny"))
    assert not (out / "synthwild.json").exists()
    (out / "release/videos/batch1/.killed.mp4.tmp").unlink()
    monkeypatch.setattr(release, "make_video", real)
    monkeypatch.setattr(release, "get_context", lambda _: processes.SERVER)
    generate(out, Config(size="tiny", workers=2))
    made = {name: digest for name, digest in files(out).items() if not name.startswith(LISTS)}
    assert sum(Path(name).suffix in (".mp4", ".avi") for name in made) == 7
    assert made.items() <= files(synthwild_tiny).items()


def test_complete_corpus_is_left_alone_and_others_are_refused(synthwild_tiny: Path, tmp_path: Path) -> None:
    before = (synthwild_tiny / "synthwild.json").stat().st_mtime_ns
    generate(synthwild_tiny, Config(size="tiny"))
    assert (synthwild_tiny / "synthwild.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="a different corpus"):
        generate(synthwild_tiny, Config(size="tiny", seed=1))
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(UserError, match="not empty"):
        generate(tmp_path, Config(size="tiny"))
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_mtcnn_finds_the_faces(synthwild_tiny: Path) -> None:
    mtcnn = pytest.importorskip("facenet_pytorch", reason="facenet_pytorch is not installed")
    detector = mtcnn.MTCNN(keep_all=True, device="cpu")
    found = total = 0
    for video in videos(synthwild_tiny).values():
        if video["away"]:
            continue
        with av.open(str(synthwild_tiny / video["file"])) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        _, scores = detector.detect(frames[len(frames) // 3])
        total += len(video["subjects"])
        found += sum(score is not None and score > 0.9 for score in scores)
    assert found >= 0.8 * total, (found, total)
