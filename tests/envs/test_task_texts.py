"""What a task says of itself to people who do not know it."""

from __future__ import annotations

import pytest

from fosp.envs import TASKS, Task


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_task_tells_its_purpose_and_each_thing_that_costs(task: Task) -> None:
    named = {"hazards": "hazard", "pillars": "pillar", "gremlins": "gremlin", "buttons": "not the goal"}
    named |= {"vases_contact": "touching a cyan box", "vases_velocity": "slides"}
    assert task.text.startswith("The robot is to ")
    for term, words in named.items():
        assert (words in task.text) == (term in task.costs)
    assert ("Nothing costs anything" in task.text) == (not task.costs)
