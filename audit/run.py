"""What an Aff-Wild2 release holds, what does not fit together, and what leaks between the tasks' splits.

python audit/run.py --affwild2 DIR [--json FILE] [--page FILE.html]
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import tyro

from checkpoints.artifact import write_json
from checkpoints.errors import guarded


@dataclass
class Config:
    """Report what an Aff-Wild2 release holds, what does not fit together, and what leaks between the tasks' splits."""

    affwild2: Path
    """Root of the release: videos, cropped_aligned, "6th ABAW Annotations", ... Missing parts are skipped."""
    faces: Path | None = None
    """A faces store of it. Subjects without a face in it are listed, and videos whose frames it has are not decoded."""
    identities: Path | None = None
    """CSV with the columns id and identity, if people are known to appear in several videos."""
    json: Path | None = None
    """Write all findings here, with full lists of names."""
    page: Path | None = None
    """Write the report as an HTML page here."""
    skip_bad: bool = False
    """List malformed lines of annotations and skip them, instead of stopping at the first."""


def main() -> None:
    """Audit a release, print the findings, and write the files that were asked for."""
    config = tyro.cli(Config, description=Config.__doc__)
    from audit.examine import examine  # heavy, and `--help` needs neither
    from audit.summary import print_audit, write_audit_page

    found = examine(config.affwild2, faces=config.faces, identities=config.identities, skip_bad=config.skip_bad)
    print_audit(found)
    if config.json:
        write_json(config.json, asdict(found))
    if config.page:
        write_audit_page(config.page, found)


if __name__ == "__main__":
    guarded(main)
