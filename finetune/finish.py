"""The product of stage 2: the encoder, its classifier and the report."""

from collections.abc import Mapping
from typing import Any

from checkpoints.artifact import fingerprint
from checkpoints.encoder import chosen_on, save_encoder
from checkpoints.network import Encoder
from checkpoints.tensors import save_tensors
from finetune.classifier import WEIGHTS, Classifier, product
from finetune.labels import Split
from finetune.run_report import write_report
from finetune.scoring import Scorer
from finetune.validation import BEST, BestWeights
from preprocessing.faces import FacesStore
from wildaffect.report.card import write_product_card
from wildaffect.tasks.leaks import together
from wildaffect.training.rundir import RunDirectory, read_run_header


def provenance(parent: Encoder, store: FacesStore, split: Split) -> dict[str, Any]:
    """How and on what the encoder was trained and chosen, including its parent's history."""
    before = parent.provenance
    return {
        "stage": "finetune",
        "synthetic": bool(store.header.get("synthetic", False)),
        "unlabelled_videos": before.get("unlabelled_videos", []),
        "labelled_videos": together(
            before.get("labelled_videos") or {},
            {"expr": split.train.ids} | ({"au": split.units} if split.units else {}),
        ),
        "chosen_on": together(chosen_on(before), {"expr": split.validation.ids}),
        "synthetic_labels": synthetic_labels(before, split),
    }


def synthetic_labels(before: Mapping[str, Any], split: Split) -> list[str]:
    """Tasks all of whose labels, those of the parent included, are of drawn or rendered faces."""
    own, earlier = {"expr", *(["au"] if split.units else [])}, set(before.get("labelled_videos") or {})
    real = (own - set(split.synthetic)) | (earlier - set(before.get("synthetic_labels", [])))
    return sorted((own | earlier) - real)


def finish(
    run: RunDirectory, model: Classifier, parent: Encoder, store: FacesStore, split: Split, scorer: Scorer
) -> dict[str, Any]:
    """Write `encoder`, `classifier.safetensors`, `report.html` and `finished.json` of a run; returns the last."""
    accelerator = scorer.accelerator
    accelerator.wait_for_everyone()
    best = BestWeights(run.path / BEST)
    best.load_into(model)
    probabilities = scorer.probabilities(model)
    summary = scorer.score(probabilities) | {"step": best.step}
    if accelerator.is_main_process:
        header = read_run_header(run.path)
        encoder = product(model.encoder, parent)
        encoder.provenance = provenance(parent, store, split)
        save_tensors(run.path / WEIGHTS, dict(model.head.state_dict()))
        save_encoder(
            run.path / "encoder",
            encoder,
            made_by="finetune/run.py",
            recipe=header["config"],
            parents=header["parents"],
            classifier=fingerprint(run.path / WEIGHTS),
            scores={key: summary[key] for key in ("macro_f1", "accuracy", "classes", "frames", "step")},
        )
        write_product_card(run.path / "encoder")
        write_report(run, store, split, scorer, probabilities, summary)
        print(
            f"macro F1 {summary['macro_f1']:.4f} over {len(summary['classes'])} classes, {summary['frames']:,} frames "
            f"of {len(split.validation.ids):,} videos, which chose the step, so a little too good; encoder in "
            f"{run.path / 'encoder'}, figures in {run.path / 'report.html'}",
            flush=True,
        )
    run.finish(summary)
    accelerator.wait_for_everyone()
    return summary
