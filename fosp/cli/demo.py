"""fosp demo"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fosp.cli.road import Plan, Road, drive

DEMO = Plan(
    episodes=300,
    scenario="larger-hazards",
    preset="laptop",
    cloning=("training.latent_updates=1000",),
    # Offline the budget is one of imagined cost, here of real cost; half of it leaves room for what few episodes hide.
    finetune=("agent.constraint.budget=3.0", "agent.constraint.step=1e-3"),
)


@dataclass(frozen=True)
class Options:
    """The whole road on SafetyPointGoal1 in about 20 minutes on two processor cores."""

    out: Path = Path("runs/demo")
    """Folder for everything; a rerun goes on where the last one stopped."""
    seed: int = 0
    """Seed of log, learning and layouts."""
    device: str = "auto"
    """cpu, cuda or auto."""


def run(options: Options) -> int:
    from fosp.cli.progress import duration_text
    from fosp.cli.tables import dataset_table, learning_table, show
    from fosp.evaluation.table import format_document

    road = Road(DEMO, options.out, options.seed, options.device)
    seconds = drive(road, print)
    show(dataset_table(options.out / "log"))
    for document in road.documents().values():
        show(format_document(document))
    show(learning_table(options.out / "finetuned"))
    print(", ".join(f"{name} {duration_text(spent)}" for name, spent in seconds.items()))
    print(f"in all {duration_text(sum(seconds.values()))}; the report is {options.out / 'report.html'}")
    return 0
