"""VA, Expr and AU: names, masks, losses, decoding, metrics and file forms."""

from wildaffect.tasks.task import AU, AUS, EXPR, EXPRESSIONS, TASKS, Task

__all__ = ["AU", "AUS", "EXPR", "EXPRESSIONS", "TASKS", "Task"]
