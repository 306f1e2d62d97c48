"""VA, Expr and AU: names, masks, losses, decoding, metrics and file forms."""

from wildaffect.tasks.task import AUS, EXPR, EXPRESSIONS, TASKS, Task

__all__ = ["AUS", "EXPR", "EXPRESSIONS", "TASKS", "Task"]
