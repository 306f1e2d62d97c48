"""What stage 1 does at intervals during training: draws reconstructions, and probes the encoder on labelled faces."""

from typing import Any

from checkpoints.errors import UserError
from pretrain.build import write_result
from pretrain.mae import MaskedAutoencoder
from pretrain.mixture import Faces
from pretrain.probe import Probe
from pretrain.recipes import Pretrain
from pretrain.run_report import write_grid
from wildaffect.training.rundir import RunDirectory

BEST = "best"


class Monitor:
    """Watches a run of `steps` steps: `config.looks` times, evenly spaced, and after the last step.

    Raises:
        UserError: Only one of the probe's faces and labels is given, or they are too few.
    """

    def __init__(self, run: RunDirectory, model: MaskedAutoencoder, faces: Faces, config: Pretrain, steps: int) -> None:
        self.run, self.model, self.faces, self.config, self.steps = run, model, faces, config, steps
        self.every = -(-steps // max(1, config.looks))
        self.probe: Probe | None = None
        if (config.probe_faces is None) != (config.probe_labels is None):
            raise UserError("--probe-faces and --probe-labels belong together: pass both or neither")
        if config.probe_faces is not None and config.probe_labels is not None:
            self.probe = Probe(config.probe_faces, config.probe_labels, config.image_size, config.probe_class_map)
            for note in self.probe.notes:
                print(note)

    def after_step(self, step: int, facts: dict[str, Any]) -> None:
        """If it is time, draw reconstructions, score the encoder, and keep it if it is the best so far.

        The best scores so far are kept in `facts`, which survive a kill.
        """
        if step % self.every and step != self.steps:
            return
        write_grid(self.run.path, self.model, self.faces, step)
        if self.probe is None:
            return
        scores = self.probe.score(self.model.encoder)
        self.run.log({"step": step, **scores})
        better = scores["probe_linear"] > facts.get("probe_linear", -1.0)
        if better:
            facts.update(scores, probe_step=step)
            seen, chose = step * self.config.batch_size, {"expr": self.probe.ids}
            write_result(self.run, self.model, self.faces, self.config, seen, BEST, chose)
        print(
            f"step {step}/{self.steps}  probe: nearest neighbours {scores['probe_knn']:.4f}, linear "
            f"{scores['probe_linear']:.4f}" + ("  (best so far)" if better else ""),
            flush=True,
        )

    def best(self, facts: dict[str, Any]) -> dict[str, Any]:
        """The best probe's scores and step for the summary; empty if nothing was probed."""
        return {key: facts[key] for key in ("probe_linear", "probe_knn", "probe_step") if key in facts}
