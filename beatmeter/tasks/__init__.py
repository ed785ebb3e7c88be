"""The tasks by name. A new task is one class and one line here."""

from beatmeter.tasks.base import Task
from beatmeter.tasks.meter import MeterTask

TASKS: dict[str, type[Task]] = {"meter": MeterTask}

__all__ = ["TASKS", "Task"]
