"""Sound extraction from top to bottom: the store and its videos, what is stale, the sound of each video, the report."""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from checkpoints.content import content_hashes
from checkpoints.errors import UserError, some
from checkpoints.lock import sole_writer
from features.cache import source_of, write_features
from features.cache_report import write_report
from features.job import share
from features.making import CacheInMaking, Origin
from features.settings import Extract
from features.sound import Ear, hear_video
from features.speech_model import load_ear
from preprocessing.faces import FacesStore
from preprocessing.faces import Sequence as FaceSequence
from preprocessing.sources import find_items
from wildaffect.report.bar import progress_bar
from wildaffect.training.launch import start


class SoundCache(CacheInMaking):
    """The cache of the sound of a store's videos.

    Args:
        path: Its directory.
        ear: Makes the features.
        store: The faces.
        videos: Id -> the video, as far as there is one.
    """

    def __init__(self, path: Path, ear: Ear, store: FacesStore, videos: dict[str, Path]) -> None:
        origin = Origin(
            feature_id=ear.feature_id,
            dim=ear.dim,
            made_of=f"{ear.feature_id} fp32",
            config=ear.config,
            fingerprint=ear.fingerprint,
            encoder=ear.place,
        )
        super().__init__(path, origin, store)
        self.ear, self.videos = ear, videos

    @property
    def up_to_date(self) -> bool:
        """Whether the cache is complete and made in this way from these faces and videos."""
        sequences = self.store.sequences()
        return super().up_to_date and all(source_of(self.path, s.id) == self.made_of(s) for s in sequences)

    def made_of(self, sequence: FaceSequence) -> str:
        """What the file of a sequence is made of: the frames' times, and the content of their video."""
        rows = slice(sequence.start, sequence.start + sequence.length)
        digest = hashlib.sha256(self.store.frame[rows].tobytes() + self.store.time_s[rows].tobytes())
        video = self.videos.get(sequence.video)
        if video is not None:
            digest.update(content_hashes(video.parent, [video.name])[video.name].encode())
        return self.source(digest.hexdigest())

    def write(self, people: Sequence[FaceSequence], stale: Sequence[FaceSequence], problems: list[str]) -> int:
        """Write the stale files of one video's people, and add to the problems; returns how many frames have sound."""
        video, count = people[0].video, 0
        path = self.videos.get(video)
        if path is None:
            problems.append(f"{video} is not in --source")
        # All people: a frame's row depends on the times of its neighbours, whoever is seen there.
        heard = hear_video(self.ear, path, self.store, people, lambda problem: problems.append(f"{video} {problem}"))
        for sequence in stale:
            features, valid = heard[sequence.id]
            write_features(
                self.path,
                sequence.id,
                features=features,
                valid=valid,
                time_s=self.store.time_s[sequence.start : sequence.start + sequence.length],
                first_frame=sequence.first_frame,
                source=self.made_of(sequence),
            )
            count += int(valid.sum())
        return count


@sole_writer
def extract_sound(config: Extract) -> dict[str, Any]:
    """Extract what is missing or stale; returns what was done.

    Raises:
        UserError: Inputs are missing or do not fit, or `out` holds something else.
    """
    accelerator = start("fp32")
    store = FacesStore(config.faces)
    ear = load_ear(config.audio, accelerator.device)
    cache = SoundCache(config.out, ear, store, videos_of(store, config.source))
    sequences = store.sequences()
    if cache.up_to_date:
        accelerator.print(f"{config.out} is up to date: {len(sequences):,} sequences")
        if accelerator.is_main_process and not (config.out / "report.html").exists():
            write_report(config.out, store, None, unreadable=None)
        return {"extracted": 0, "frames": 0, "up_to_date": len(sequences)}
    if accelerator.is_main_process:
        cache.open()
    accelerator.wait_for_everyone()
    accelerator.print(f"sound as {ear.config['sound']}, {ear.dim} features; {len(sequences):,} sequences")
    people: dict[str, list[FaceSequence]] = {}
    for sequence in sequences:
        people.setdefault(sequence.video, []).append(sequence)
    mine = share([members[0] for members in people.values()], accelerator.process_index, accelerator.num_processes)
    done, frames = 0, 0
    problems: list[str] = []
    total = sum(s.length for first in mine for s in people[first.video])
    with progress_bar(total=total, unit="frame", disable=not accelerator.is_main_process) as bar:
        for video in (first.video for first in mine):
            reasons = {s.id: cache.stale(s.id, cache.made_of(s)) for s in people[video]}
            for id, reason in reasons.items():
                if reason not in (None, "missing"):
                    bar.write(f"extracted again: {config.out}/{id} is {reason}", file=sys.stdout)
            stale = [s for s in people[video] if reasons[s.id] is not None]
            if stale:
                frames += cache.write(people[video], stale, problems)
            done += len(stale)
            bar.update(sum(s.length for s in people[video]))
    for problem in problems[:5]:
        print(f"note: {problem}", flush=True)
    if len(problems) > 5:
        print(f"note: and {len(problems) - 5} more like these", flush=True)
    counts = torch.tensor([done, frames], device=accelerator.device)
    extracted, heard = accelerator.reduce(counts).tolist()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        cache.finish()
        write_report(config.out, store, None, unreadable=None)
        accelerator.print(
            f"{config.out}: {extracted:,} sequences extracted, {heard:,} of their frames have sound; "
            f"{len(sequences) - extracted:,} were up to date"
        )
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return {"extracted": extracted, "frames": heard, "up_to_date": len(sequences) - extracted}


def videos_of(store: FacesStore, source: Sequence[Path]) -> dict[str, Path]:
    """Id -> video, for the videos of a store that the sources hold.

    Raises:
        UserError: They hold none, or the store has no times for the frames of one.
    """
    if not source:
        raise UserError("--audio needs --source: the same as for preprocessing/run.py; it must hold the videos")
    items, _ = find_items([str(path) for path in source], crops=False)
    wanted = set(store.video)
    videos = {item.video: item.path for item in items if item.kind == "video" and item.video in wanted}
    videos = {id: path for id, path in videos.items() if path.is_file()}
    if not videos:
        raise UserError(
            f"--source {' '.join(map(str, source))} has no video of {store.path} ({some(sorted(wanted), 3)}): give "
            "the same --source as for preprocessing/run.py"
        )
    for sequence in store.sequences():
        rows = slice(sequence.start, sequence.start + sequence.length)
        timeless = store.valid[rows].any() and not np.isfinite(store.time_s[rows]).any()
        if sequence.video in videos and timeless:
            raise UserError(
                f"{store.path}: the frames of {sequence.id} have no times, so that its sound cannot be placed: run "
                "preprocessing/run.py on the videos, or for crops on a release that has its videos too"
            )
    return videos
