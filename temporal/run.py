"""Stage 3: `python temporal/run.py {va,expr,au,joint} RECIPE --features CACHE... --labels ROOT --out RUN`."""

import sys
from collections.abc import Sequence
from typing import Any

import tyro

from checkpoints.errors import UserError, guarded
from temporal.recipes import TaskName, Temporal, recipes

TASK_NAMES: tuple[TaskName, ...] = ("va", "expr", "au", "joint")


def main(config: Temporal) -> dict[str, Any]:
    """Train a head, or one per fold and seed; see :func:`temporal.train.train`, which loads torch."""
    from temporal.train import train

    return train(config)


def command_line(arguments: Sequence[str] | None = None) -> None:
    """Parse `TASK RECIPE --options` and train."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    task: TaskName | None = next((name for name in TASK_NAMES if arguments[:1] == [name]), None)
    if task is None:
        known = "".join(f"\n  {name:18} {text}" for name, (text, _) in recipes("va").items())
        usage = (
            f"{__doc__}\n\nTasks: {', '.join(TASK_NAMES)}\nRecipes:{known}\n\n"
            "`temporal/run.py TASK RECIPE --help` lists the options with that recipe's values."
        )
        if arguments[:1] in (["-h"], ["--help"]):
            print(usage)
            return
        raise UserError(f"expected a task first ({', '.join(TASK_NAMES)}), then a recipe; --help lists them")
    main(
        tyro.extras.overridable_config_cli(
            recipes(task), description=__doc__, prog=f"temporal/run.py {task}", args=arguments[1:]
        )
    )


if __name__ == "__main__":
    guarded(command_line)
