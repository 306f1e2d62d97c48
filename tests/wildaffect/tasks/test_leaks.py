"""Which recordings' labels were seen."""

from wildaffect.tasks.leaks import scoreable


def test_parts_of_a_recording_leak_like_the_recording():
    """They show the same people in the same room."""
    ids = ["24-30-1920x1080-2", "video45_7_left", "video46"]
    seen = {"expr": ["24-30-1920x1080-1", "video45_1"]}
    assert scoreable(ids, tasks={"va"}, encoder=seen, head=(), allow_leak=False, rule_clean=False) == ["video46"]
