"""All stages on the synthetic corpus: `make demo` (stage 1 continues from shipped weights) or `make demo-full`.

Runs the stage commands one after another in one process. Every stage resumes by itself: an interrupted demo continues
where it was when it is started again, and ends with the same scores.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import tyro

import features.run
import features.settings
import finetune.recipes
import finetune.run
import preprocessing.run
import pretrain.recipes
import pretrain.run
import synthwild.run
import temporal.evaluate
import temporal.recipes
import temporal.run
import temporal.submit
from checkpoints.artifact import read_json, write_json
from checkpoints.errors import guarded
from checkpoints.lock import sole_writer
from checkpoints.ranges import check_ranges
from wildaffect.report.formats import duration

TASKS: tuple[Literal["va", "expr", "au"], ...] = ("va", "expr", "au")
EXAMPLES = {"va": "VA", "expr": "Expr", "au": "AU"}
SHIPPED = Path(__file__).parent / "checkpoints" / "demo"
CONTINUED_STEPS = 150
MINUTES = {
    "synthwild": 3,
    "preprocess": 4,
    "pretrain": 2,
    "finetune": 3,
    "extract": 1,
    "temporal": 3,
    "evaluate": 0.5,
}
"""The stages, and about how long each takes on two cores."""


@dataclass(frozen=True)
class Demo:
    """Run all stages on SynthWild and write a summary and a report."""

    out: Path = Path("runs/demo")
    """Folder for all results."""
    from_scratch: bool = False
    """Train stage 1 from scratch instead of continuing from the shipped weights."""
    size: Literal["tiny", "small", "medium"] = "small"
    """Size of the corpus."""
    workers: int = 2
    """Number of processes for drawing and detection."""


class Stages:
    """Runs stages and adds up their seconds, across interruptions.

    Args:
        out: Folder for `stages.json`.
        minutes: The stages in order, and how long each usually takes. Their ratios are what counts: how fast the
            machine is shows in the stages that are done.
    """

    def __init__(self, out: Path, minutes: Mapping[str, float]) -> None:
        self.path, self.minutes = out / "stages.json", minutes
        self.seconds: dict[str, float] = read_json(self.path) if self.path.exists() else {}

    def left(self, name: str) -> float:
        """Seconds from the start of a stage to the end of the last one, as far as can be told."""
        names = list(self.minutes)
        done = names[: names.index(name)]
        usual = sum(self.minutes[stage] for stage in done)
        pace = sum(self.seconds.get(stage, 0.0) for stage in done) / usual if usual else 60.0
        return pace * (sum(self.minutes.values()) - usual)

    def run(self, name: str, work: Callable[[], Any]) -> Any:
        """Run one stage, or the rest of it."""
        place = f"stage {[*self.minutes].index(name) + 1} of {len(self.minutes)}"
        print(f"\n=== {place}: {name} (about {duration(self.left(name))} left in all)", flush=True)
        start = time.perf_counter()
        try:
            return work()
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            write_json(self.path, self.seconds)


@sole_writer
def main(config: Demo) -> dict[str, Any]:
    """Run all stages and return the summary."""
    check_ranges(config)
    out, stages = config.out, Stages(config.out, MINUTES)
    corpus, release = out / "corpus", out / "corpus" / "release"
    corpus_settings = synthwild.run.Config(size=config.size, workers=config.workers)
    extraction = features.settings.Extract(encoder=str(out / "finetune"), faces=out / "faces", out=out / "features")
    stages.run("synthwild", lambda: synthwild.run.generate(corpus, corpus_settings))
    stages.run("preprocess", lambda: find_faces(config, corpus))
    stages.run("pretrain", lambda: stage_1(config))
    stages.run("finetune", lambda: stage_2(out, release))
    stages.run("extract", lambda: features.run.main(extraction))
    stages.run("temporal", lambda: stage_3(out, release))
    scores = stages.run("evaluate", lambda: score(out, corpus))
    summary = {
        "corpus": {"name": "SynthWild (synthetic)", **read_json(corpus / "synthwild.json")["counts"]},
        "stage_1": "from scratch" if config.from_scratch else f"{CONTINUED_STEPS} steps from checkpoints/demo",
        "stages": {name: {"seconds": round(seconds, 1)} for name, seconds in stages.seconds.items()},
        "scores": scores,
    }
    write_report(config, summary)
    write_json(out / "summary.json", summary)
    print_table(summary)
    print(f"\nreport: {out / 'report.html'}")
    return summary


def print_table(summary: dict[str, Any]) -> None:
    """Print the scores and the total time."""
    from temporal.scoring import interval

    print("\nScores on the test split of SynthWild (synthetic faces), from the written challenge files:")
    print(f"{'task':6}{'score':>8}{'95 % interval':>18}{'single frames':>15}{'chance':>8}")
    for task, scores in summary["scores"].items():
        print(f"{task:6}{scores['score']:8.3f}{interval(scores):>18}{scores['framewise']:15.3f}{scores['chance']:8.3f}")
    total = sum(stage["seconds"] for stage in summary["stages"].values())
    print(f"stage 1: {summary['stage_1']}; {duration(total)} in all")


def find_faces(config: Demo, corpus: Path) -> None:
    """Find the faces in the raw videos, of the labelled release and of the unlabelled people."""
    for source, store in (("release", "faces"), ("unlabelled", "unlabelled_faces")):
        settings = preprocessing.run.Config([str(corpus / source)], config.out / store, workers=config.workers)
        preprocessing.run.run(settings)


def stage_1(config: Demo) -> None:
    """Stage 1 on the unlabelled people, from the shipped weights or from scratch."""
    recipe = pretrain.recipes.RECIPES["demo"][1]
    recipe = replace(recipe, faces=(config.out / "unlabelled_faces",), out=config.out / "pretrain")
    if not config.from_scratch:
        recipe = replace(recipe, init=SHIPPED, steps=CONTINUED_STEPS, lr=recipe.lr / 5)
    pretrain.run.main(recipe)


def stage_2(out: Path, release: Path) -> dict[str, Any]:
    """Stage 2 on the expression labels of the training videos."""
    recipe = replace(finetune.recipes.RECIPES["demo"][1], faces=out / "faces", labels=release)
    return finetune.run.main(replace(recipe, encoder=str(out / "pretrain"), out=out / "finetune"))


def stage_3(out: Path, release: Path) -> None:
    """Stage 3: a TCN and Transformer head per task, and a linear one on single frames for comparison."""
    for task in TASKS:
        for name, place in (("demo", task), ("framewise", f"{task}_framewise")):
            chosen = replace(temporal.recipes.recipe(name, task), tune_on="validation")
            temporal.run.main(replace(chosen, features=(out / "features",), labels=release, out=out / place))


def score(out: Path, corpus: Path) -> dict[str, dict[str, float]]:
    """Write challenge files for the test split and score them against the answers, which no stage saw."""
    scores: dict[str, dict[str, float]] = {}
    for task in TASKS:
        results = {}
        for head in (task, f"{task}_framewise"):
            file = out / "challenge" / f"{head}.txt"
            example = corpus / "release" / "test_set_examples" / f"CVPR_6th_ABAW_{EXAMPLES[task]}_test_set_example.txt"
            temporal.submit.main(
                temporal.submit.Submit(heads=(out / head,), features=(out / "features",), example=example, out=file)
            )
            evaluated = temporal.evaluate.Evaluate(task=task, predictions=file, labels=corpus / "answers" / task)
            results[head] = temporal.evaluate.main(evaluated)
        kept = ("score", "ccc_valence", "ccc_arousal", "f1", "chance", "ci_low", "ci_high", "videos", "frames")
        scores[task] = {key: results[task][key] for key in kept if key in results[task]}
        scores[task]["framewise"] = results[f"{task}_framewise"]["score"]
    return scores


def write_report(config: Demo, summary: dict[str, Any]) -> None:
    """Write `report.html`: scores, reconstructions of stage 1, learning curves, and each task on the test split."""
    from pretrain.build import load_mae
    from pretrain.mixture import FacesMixture
    from pretrain.run_report import reconstructions
    from temporal.plots import task_sections
    from temporal.scored import load_scored
    from temporal.scoring import interval
    from wildaffect.report.figures import loss_curves, mae_reconstructions
    from wildaffect.report.page import HALF, SYNTHETIC_NOTE, Block, Cards, Figure, Section, Table, write_page
    from wildaffect.training.rundir import read_metrics

    out = config.out
    faces = FacesMixture([out / "unlabelled_faces"])
    blocks: list[Block] = [
        Figure(
            mae_reconstructions(reconstructions(load_mae(out / "pretrain"), faces)),
            f"Stage 1 ({summary['stage_1']}): masked input, prediction with the visible patches pasted in, original",
        ),
        Cards(
            [
                Figure(loss_curves(read_metrics(out / "pretrain")), "Stage 1: error of masked patches", HALF),
                Figure(loss_curves(read_metrics(out / "finetune")), "Stage 2: loss on expression labels", HALF),
            ]
        ),
    ]
    scores = [
        [task, part["score"], interval(part), part["framewise"], part["chance"]]
        for task, part in summary["scores"].items()
    ]
    header = ["task", "score", "95 % interval", "linear head on single frames", "best constant"]
    caption = (
        "VA: mean CCC; Expr: macro F1; AU: mean F1. The challenge files are scored against the held-out answers; "
        "the interval is a bootstrap over videos."
    )
    seconds = [[name, duration(stage["seconds"])] for name, stage in summary["stages"].items()]
    tables = [Table(header, scores, caption), Table(["stage", "time"], seconds)]
    sections = [Section("Scores on the test split", tables), Section("Learning", blocks)]
    for task in TASKS:
        predictions, answers = out / "challenge" / f"{task}.txt", out / "corpus" / "answers" / task
        scored = load_scored(task, task, predictions, answers)
        sections += task_sections(task, summary["scores"][task], scored, "test")
    write_page(out / "report.html", "wildaffect: all stages on SynthWild", sections, note=SYNTHETIC_NOTE)


if __name__ == "__main__":
    guarded(lambda: main(tyro.cli(Demo, description=__doc__)))
