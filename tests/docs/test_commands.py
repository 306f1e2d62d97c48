"""Runs the commands that the documentation tells users to type."""

import os
import shlex
from pathlib import Path

import pytest
import tyro

from tests.docs.commands import ROOT, commands_of, run_script, script_of, section, with_options
from tests.wildaffect.inference.conftest import make_encoder
from wildaffect.tasks import TASKS
from wildaffect.tasks.challenge import read_challenge_file
from wildaffect.tasks.labels import read_annotations

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACEHOLDERS = ("...", "RECIPE", "TASK", "SOURCE", "SCRIPT")

# What makes a command of the docs small enough for a test; the commands themselves stay as they are.
SMALL = {
    "synthwild/run.py": {"--size": ["tiny"]},
    "preprocessing/run.py": {"--crops": [], "--workers": ["1"], "--size": ["112"]},
    "pretrain/run.py": {
        **{"--image-size": ["32"], "--patch-size": ["16"], "--embed-dim": ["24"], "--depth": ["1"]},
        **{"--num-heads": ["2"], "--decoder-dim": ["16"], "--decoder-depth": ["1"], "--decoder-heads": ["2"]},
        **{"--batch-size": ["8"], "--steps": ["2"], "--workers": ["0"]},
    },
    "finetune/run.py": {
        **{"--frames-per-video": ["1"], "--validation-frames-per-video": ["1"], "--batch-size": ["16"]},
        **{"--epochs": ["1"], "--evaluations": ["1"], "--workers": ["0"]},
    },
    "features/run.py": {"--workers": ["0"]},
    "temporal/run.py": {"--epochs": ["1"], "--evaluations": ["1"], "--window": ["20"], "--stride": ["10"]},
}
SHALLOW = {  # heads of 100 M weights would take seconds each
    "ling2024": {"--tcn-channels": ["16", "8"], "--layers": ["1"], "--width": ["16"], "--feedforward": ["16"]},
    "min2024": {"--layers": ["1"], "--width": ["16"], "--feedforward": ["16"], "--hidden": ["16"]},
    "nguyen2024": {"--fusion-width": ["16"], "--hidden": ["16"]},
    "ours": {"--tcn-channels": ["16"], "--layers": ["1"], "--width": ["16"], "--feedforward": ["16"]},
}


class ParsedError(BaseException):
    """A command line was parsed."""


def all_commands() -> list[tuple[str, str]]:
    return [(page.name, shlex.join(words)) for page in PAGES for words in commands_of(page.read_text(encoding="utf-8"))]


def test_every_command_in_every_page_is_understood(monkeypatch, tmp_path):
    """Scripts and recipes exist, and no option is unknown."""

    def stop_after(parse):
        def parsed(*args, **kwargs):
            parse(*args, **kwargs)
            raise ParsedError

        return parsed

    monkeypatch.setattr(tyro, "cli", stop_after(tyro.cli))
    for name in ("overridable_config_cli", "subcommand_cli_from_dict"):
        monkeypatch.setattr(tyro.extras, name, stop_after(getattr(tyro.extras, name)))
    monkeypatch.chdir(tmp_path)
    seen, wrong = set(), []
    for page, command in all_commands():
        words = shlex.split(command)
        found = script_of(words)
        if found is None or any(word in PLACEHOLDERS for word in words):
            continue
        script, arguments = found
        seen.add(script.relative_to(ROOT).as_posix())
        try:
            run_script(script, arguments, monkeypatch)
        except ParsedError:
            continue
        except (AssertionError, OSError) as error:
            wrong.append(f"{page}: {command}: {error}")
            continue
        wrong.append(f"{page}: {command}: did something without reading its command line")
    assert not wrong, "\n".join(wrong)
    assert {
        "wildaffect/cli.py",
        "preprocessing/run.py",
        "pretrain/run.py",
        "finetune/run.py",
        "temporal/run.py",
    } <= seen


@pytest.fixture(scope="module")
def place(synthwild_tiny, tmp_path_factory) -> Path:
    """A folder in which `data/Aff-Wild2` is SynthWild, and imported weights are a toy encoder."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "data").mkdir()
    for name, target in (("more_faces", "unlabelled"), ("answers", "answers"), ("synthwild.json", "synthwild.json")):
        (folder / "data" / name).symlink_to(synthwild_tiny / target)
    with_mtl_challenge(synthwild_tiny / "release", folder / "data" / "Aff-Wild2")
    for name in ("weights/mae-face", "timm"):
        make_encoder(folder / name)
    return folder


def with_mtl_challenge(release: Path, copy: Path) -> None:
    """A copy of a release (of links) that has the MTL challenge's files too, with every third frame."""
    for folder in release.iterdir():
        if folder.name.endswith("Annotations") or folder.name == "test_set_examples":
            (copy / folder.name).mkdir(parents=True)
            for child in folder.iterdir():
                (copy / folder.name / child.name).symlink_to(child)
        else:
            copy.mkdir(exist_ok=True)
            (copy / folder.name).symlink_to(folder)
    (annotations,) = copy.glob("*Annotations")
    (annotations / "MTL_Challenge").mkdir()
    for split, name in (("Train_Set", "train_set"), ("Validation_Set", "validation_set")):
        by_task = {task: read_annotations(release, TASKS[task], split) for task in ("va", "expr", "au")}
        lines = ["image,valence,arousal,expression,aus"]
        for id in sorted(set.intersection(*map(set, by_task.values()))):
            labels = [tracks[id].labels for tracks in by_task.values()]
            for frame in range(0, min(map(len, labels)), 3):
                numbers = ",".join(f"{number:g}" for part in labels for number in part[frame])
                lines.append(f"{id}/{frame + 1:05d}.jpg,{numbers}")
        (annotations / "MTL_Challenge" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    example = copy / "test_set_examples" / "MTL_test_set_example.txt"
    listed = next(release.glob("test_set_examples/*_VA_*")).read_text().splitlines()[1::3]
    rows = [line.split(",")[0] + ",0,0,0" + ",0" * 12 for line in listed]
    example.write_text("\n".join(["image,valence,arousal,expression,aus", *rows]) + "\n")


def run_commands(text: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    for words in commands_of(text):
        found = script_of(words)
        assert found is not None, f"{shlex.join(words)} is no command of ours"
        script, arguments = found
        name = script.relative_to(ROOT).as_posix()
        if name == "temporal/run.py":
            paper = arguments[1].split("-")[0]
            arguments = with_options(arguments, SMALL[name] | SHALLOW[paper])
        else:
            arguments = with_options(arguments, SMALL.get(name, {}))
        arguments = ["timm" if word.startswith("timm:") else word for word in arguments]
        run_script(script, arguments, monkeypatch)


@pytest.fixture(scope="module")
def faces(place) -> Path:
    """The page's first commands: faces of the release and of others."""
    text = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8").split("\n## ")[0]
    with pytest.MonkeyPatch.context() as patch:
        run_commands(text, place, patch)
    return place


@pytest.mark.parametrize("paper, tasks", [("ling2024", 3), ("min2024", 3), ("nguyen2024", 2)])
def test_the_papers_commands_run_on_synthwild(paper, tasks, faces, monkeypatch, capsys):
    text = section((ROOT / "docs" / "recipes.md").read_text(encoding="utf-8"), paper)
    run_commands(text, faces, monkeypatch)
    runs = faces / "runs" / paper
    heads = sorted(path.parent for path in runs.glob("*/head/config.json"))
    assert len(heads) == tasks
    cards = [*heads, *(path.parent for path in runs.glob("*/encoder/config.json"))]
    assert all("Must not be used for" in (path / "README.md").read_text() for path in cards)
    assert list(runs.glob("*.txt"))
    assert "best constant" in capsys.readouterr().out


def test_the_way_through_affwild2_runs_on_synthwild(faces, monkeypatch, capsys):
    text = (ROOT / "docs" / "affwild2.md").read_text(encoding="utf-8")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    run_commands(text, faces, monkeypatch)
    assert (faces / "va.txt").read_text().startswith("image_location,valence,arousal")
    assert (faces / "runs" / "audit.html").exists()
    assert read_challenge_file(faces / "mtl.txt", "mtl").values["au"].shape[1] == 12
    assert "left out of the score" not in capsys.readouterr().err  # the encoder saw nothing that is scored
