"""The whole road as Python functions; the command line's verbs are thin wraps of these.

    log = fosp.collect("fosp/SafetyPointGoal1-v0", "runs/log", episodes=150)
    offline = fosp.pretrain("runs/log", "runs/offline")
    tuned = fosp.finetune(offline, "runs/tuned", scenario="larger-hazards")
    result = fosp.evaluate({"offline": offline, "tuned": tuned}, scenario="larger-hazards")
    fosp.write_report(["runs/offline", "runs/tuned"], "report.html")

What collects or learns can be interrupted and called again with the same arguments: it goes on where it stopped.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fosp import config as mechanism
from fosp import parallel
from fosp.cli import limits, wire
from fosp.cli.progress import Progress
from fosp.data.collect import collect as run_collection
from fosp.data.collect import default_plan
from fosp.data.episode import summary
from fosp.data.sampler import MixedSampler, Sampler
from fosp.data.store import Store
from fosp.evaluation.document import save as save_document
from fosp.evaluation.evaluate import Recording
from fosp.evaluation.evaluate import evaluate as run_evaluation
from fosp.presets import RunConfig, resolve
from fosp.training import checkpoint
from fosp.training import offline as offline_training
from fosp.training.actors import Elsewhere, Here
from fosp.training.log import Run
from fosp.training.offline import Trainer
from fosp.training.online import finetune as run_finetuning
from fosp.types import HELD_OUT_SEEDS, ONLINE_SEEDS, Episode, Schema, UserError, unknown

if TYPE_CHECKING:
    from fosp.envs import Scenario  # MuJoCo is slow to import, and pretraining knows no environment

PathLike = str | os.PathLike[str]
#: What pretraining can do, and what its run folder calls it.
METHODS = {"fosp": "pretrain", "cloning": "bc"}


def collect(
    task: str,
    out: PathLike,
    *,
    episodes: int = 150,
    seed: int = 0,
    scenario: str | Scenario | None = None,
    behaviours: Sequence[str] = ("unsafe", "safe", "random"),
    noises: Sequence[float] = (0.0, 0.2, 0.4),
    checkpoint: PathLike | None = None,
    quality: str = "fast",
    workers: int | None = None,
) -> Store:
    """Write a log of ``episodes`` by scripted behaviours in turn, or by the policy of ``checkpoint``, one layout each.

    Layouts have the seeds ``seed``, ``seed + 1``, ... Returns the log, opened for reading.
    """
    from fosp.envs.scripted import make_behaviour

    parallel.refuse("collect")
    make_env = partial(wire.make_env, task, scenario, quality)
    make_env().close()  # what is unknown is told before any process starts
    make: Callable[..., Any] = make_behaviour
    source = None
    if checkpoint is not None:
        path = _resolve(checkpoint)  # once, as its run may go on learning meanwhile
        behaviours, noises, source = ("policy",), (0.0,), _origin(path)
        make = partial(_trained_behaviour, path)
        _same_schema(wire.load_policy(path).schema, make_env, checkpoint)
    else:
        for name, noise in product(behaviours, noises):
            make_behaviour(name, noise=noise)
    plan = default_plan(episodes, seed, noises, behaviours)
    with Progress("collect", len(plan), "episodes") as bar:

        def show(done: int, total: int, row: Mapping[str, Any]) -> None:
            if done > bar.done:
                bar.advance(done - bar.done)

        return run_collection(
            out,
            make_env,
            make,
            plan,
            workers=_workers(workers, len(plan)),
            scenario=_name(scenario),
            created={"quality": quality, "checkpoint": source},
            progress=show,
        )


def _trained_behaviour(path: Path, name: str, seed: int = 0, noise: float = 0.0) -> Any:
    return wire.load_policy(path, explore=True, seed=seed)


def pretrain(
    data: PathLike,
    out: PathLike,
    *,
    preset: str = "laptop",
    config: PathLike | None = None,
    overrides: Sequence[str] = (),
    method: str = "fosp",
    model_from: PathLike | None = None,
    device: str = "auto",
    precision: str | None = None,
    compile: bool | None = None,
) -> Path:
    """Learn from a log alone; no environment exists while this runs. Returns the last checkpoint.

    ``method`` "cloning" is the baseline. With ``model_from`` the trained world model of that checkpoint is taken,
    frozen, with its sizes: what to do is learned anew, on the log as it encodes it. ``precision`` and ``compile`` stand
    for the settings training.precision and training.compile; the reference is "float32" and False. Where torchrun has
    started several processes that call this, each learns from its share of every batch (``training.batch`` is that of
    all), and the result is that of one process.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    brought = () if model_from is None else ("model.", "agent.") if method == "cloning" else ("model.",)
    for given in overrides:
        if given.startswith(brought):
            raise UserError(
                f"--set {given} has no effect: --model-from {model_from} brings its own sizes; leave it out"
            )
    settings = resolve(preset, os.fspath(config) if config else None, [*overrides, *_computing(precision, compile)])
    limits.check(settings)
    limits.check_shared(settings, parallel.world_size())
    store = _log_to_learn_from(data)
    picked = wire.pick_device(device)
    facts = wire.dataset_facts(store, data)
    if model_from is None:  # else the sizes are those of the checkpoint, which the log must fit
        limits.check_images(settings, store.schema, f"dataset {store.path}")
    learner, settings = wire.build_pretraining(settings, store, picked, method, model_from)
    training = settings.training
    source = None if model_from is None else _origin(checkpoint.resolve(model_from))
    about = {"task": store.schema.task, "scenario": store.created.get("scenario"), "dataset": facts}
    described = wire.describe(settings, store.schema, method, facts, suites=_suites(store.schema.task))
    total = training.updates + training.latent_updates
    with parallel.joined(picked) as team:
        learner.agent.team = team
        run = Run(out)
        _begin(run, settings, store, {"kind": METHODS[method], **about, "model_from": source}, team)
        drawn = Sampler(store, training.batch, training.length, settings.seed, team.own(training.batch))
        sampler = wire.source_of(drawn, picked)
        trainer = Trainer(learner, sampler, run, training, picked, described, team)
        trainer.resume()
        encode = partial(wire.encode_log, learner, store, settings)
        try:
            return offline_training.pretrain(trainer, encode, _bar(METHODS[method], total, trainer), _film(run, store))
        finally:
            sampler.close()


def _begin(run: Run, settings: RunConfig, store: Store, facts: Mapping[str, Any], team: parallel.Team) -> None:
    """Open the run folder; UserError where it, or another process of the team, is of another run."""
    text = mechanism.to_yaml(settings)
    if team.leads:
        run.begin(text, facts)
        if not run.checkpoints.exists():
            _check_content(store)
    team.same(f"the hash of dataset {store.path}", store.hash)
    team.same("the hash of the configuration", hashlib.sha256(text.encode()).hexdigest())


def _computing(precision: str | None, compiled: bool | None) -> list[str]:
    """Overrides that stand for two arguments, where they are given."""
    given = {"precision": precision, "compile": compiled}
    return [f"training.{name}={value}" for name, value in given.items() if value is not None]


def _log_to_learn_from(data: PathLike) -> Store:
    """A log that has what learning needs. UserError where it has not."""
    store = Store.open(data)
    store.require_cost()
    if len(store) == 0:
        raise UserError(f"dataset {store.path} holds no episodes; collect some first")
    return store


def _check_content(store: Store) -> None:
    """Every byte against its hash, once before learning: damage would otherwise be learned from without a word."""
    with Progress("check the log", len(store), "episodes") as bar:
        store.verify(lambda done, total: bar.advance(done - bar.done))


def _suites(task: str) -> dict[str, str]:
    """Name -> hash of the suite on which policies of a task of this package are scored; nothing for other tasks."""
    from fosp.plugin import TASKS

    if task not in TASKS:
        return {}
    try:
        from fosp.envs import SUITES, suite_hash  # makes no environment
    except UserError:  # MuJoCo finds no renderer here, which learning from a log does without
        return {}
    return {"held-out": suite_hash(task, "held-out", SUITES["held-out"].trials[0].seeds)}


def _resolve(path: PathLike) -> Path:
    return checkpoint.resolve(path)  # for functions with a parameter of this name


def _origin(source: Path) -> dict[str, str]:
    """A checkpoint that a run starts from: where it lies, and the hash by which it is known again."""
    return {"path": os.path.relpath(source), "hash": checkpoint.check_files(source)}


def _bar(name: str, total: int | None, trainer: Trainer) -> Callable[[int], AbstractContextManager]:
    minutes = trainer.config.minutes

    def make(start: int) -> Progress:
        title = f"{name} (until {minutes:g} min)" if minutes else name
        stream = None if trainer.team.leads else io.StringIO()  # one process tells for all
        return Progress(title, None if minutes else total, "updates", start=start, stream=stream)

    return make


def _film(run: Run, store: Store) -> Callable[[Path, int], None]:
    """After each checkpoint with a new world model: an episode of the log beside what the model expects of it."""
    from fosp.agent.preview import open_loop
    from fosp.report.video import side_by_side, write_mp4

    episode = store.episode(len(store) - 1)

    def film(path: Path, updates: int) -> None:
        file = run.path / "videos" / f"open-loop-{updates:08d}.mp4"
        if file.exists():
            return
        agent, _ = wire.load_agent(path)
        imagined, _ = open_loop(agent, store.schema, episode)
        clips = [[episode.images[name], imagined[name]] for name in store.schema.cameras]  # real beside imagined
        file.parent.mkdir(exist_ok=True)
        fps = 1 / store.schema.step_seconds if store.schema.step_seconds else 12.5
        write_mp4(file, side_by_side(clips), fps)

    return film


def finetune(
    checkpoint_path: PathLike,
    out: PathLike,
    *,
    task: str | None = None,
    scenario: str | Scenario | None = None,
    data: PathLike | None = None,
    config: PathLike | None = None,
    overrides: Sequence[str] = (),
    seed: int = 0,
    quality: str = "fast",
    device: str = "auto",
    precision: str | None = None,
    compile: bool | None = None,
    compare: bool = True,
    workers: int | None = None,
) -> Path:
    """Safe policy expansion where the policy is deployed. Returns the last checkpoint.

    Acting and learning go on at the same time, in two processes; with ``workers=0`` (or one core) in turn, in this one.
    The log that the checkpoint was trained on (or ``data``) gives a share of each batch. With ``compare`` the frozen
    offline policy is then run on the very layouts that were learned on, so that violations made while learning can be
    compared: ``episodes.jsonl`` against ``frozen.jsonl``.
    """
    from fosp.envs import find_scenario, find_task, suite_hash

    parallel.refuse("finetune")
    source = checkpoint.resolve(checkpoint_path)
    _workers(workers, 1)  # a wrong number is told now, not after learning
    agent, facts = wire.load_agent(source)
    if facts["method"] != "fosp":
        raise UserError(f"checkpoint {source} is of method {facts['method']}; only a policy with critics is fine-tuned")
    schema = Schema.from_json(facts["schema"])
    base = mechanism.from_tree(RunConfig(), facts["config"])
    base = replace(base, training=replace(base.training, minutes=0.0))  # the time that pretraining had is not for this
    base = mechanism.load(os.fspath(config), base) if config else base
    settings = mechanism.override(base, [*overrides, *_computing(precision, compile)])
    limits.check(settings)
    task = find_task(task or schema.task).id
    seeds = _layouts(ONLINE_SEEDS, seed, settings.online.episodes)
    digest = suite_hash(task, find_scenario(scenario), seeds)
    make_env = partial(wire.make_env, task, scenario, quality)
    scenario = _name(scenario)
    _same_schema(schema, make_env, checkpoint_path)
    log = _log_of(facts, data)
    log.require(schema)
    picked = wire.pick_device(device)
    learner = wire.build_expansion(agent, settings, picked)
    run = Run(out)
    about = {"kind": "finetune", "task": task, "scenario": scenario, "seed": seed, "quality": quality}
    dataset = wire.dataset_facts(log, log.path)
    pinned = {"suite_hash": digest, "dataset": dataset, "checkpoint": _origin(source)}
    run.begin(mechanism.to_yaml(settings), {**about, **pinned})
    store = _online_store(run, schema, scenario)
    training = settings.training
    mixed = MixedSampler(
        Sampler(log, training.batch, training.length, settings.seed),
        Sampler(store, training.batch, training.length, settings.seed + 1),
        settings.online.offline_share,
    )
    sampler = wire.source_of(mixed, picked)
    described = wire.describe(
        settings, schema, "fosp", dataset, expanded=True, scenario=scenario, suite_hash=digest, suites=_suites(task)
    )
    trainer = Trainer(learner, sampler, run, training, picked, described)
    trainer.resume()
    # Both give the same run; with one core there is nothing to be gained by a second process.
    place = Here if workers == 0 or workers is None and _workers(None, 2) == 1 else Elsewhere
    actor = place(partial(wire.OnlineActing, settings, schema, make_env, seed, scenario))
    try:
        with Progress("finetune", settings.online.episodes, "episodes", start=len(store)) as bar:
            path = run_finetuning(trainer, actor, store, seeds, settings.online, lambda start: _Borrowed(bar))
    finally:
        actor.close()
        sampler.close()
        store.close()
    if compare:
        _compare_frozen(run, source, make_env, [row["seed"] for row in run.rows("episodes.jsonl")], workers)
    return path


def _name(scenario: str | Scenario | None) -> str | None:
    """What files say of a scenario; None is the task as it is."""
    return scenario if scenario is None or isinstance(scenario, str) else scenario.name


def _layouts(allowed: range, seed: int, count: int) -> range:
    """``count`` layout seeds, others for every ``seed``. UserError where they are not all of the allowed ones."""
    first = allowed.start + 10_000 * seed
    if seed < 0 or first + count > allowed.stop:
        most = (len(allowed) - count) // 10_000
        raise UserError(f"--seed {seed} has no {count} layouts of its own; it must lie between 0 and {most}")
    return range(first, first + count)


class _Borrowed:
    """A progress bar that its owner opens and closes."""

    def __init__(self, bar: Progress) -> None:
        self.bar = bar

    def __enter__(self) -> Progress:
        return self.bar

    def __exit__(self, *_: object) -> None:
        return None


def _online_store(run: Run, schema: Schema, scenario: str | None) -> Store:
    path = run.path / "episodes"
    if (path / "dataset.json").exists():
        return Store.open(path, append=True)
    return Store.create(path, schema, created={"scenario": scenario})


def _log_of(facts: Mapping[str, Any], data: PathLike | None) -> Store:
    """The log of a checkpoint, where it was or where the user says it is now."""
    known = facts["dataset"]
    path = Path(data if data is not None else known["path"])
    if data is None and not path.exists():
        raise UserError(f"the log {path} that the checkpoint was trained on is not there; say where it is with --data")
    store = Store.open(path)
    if data is None and store.hash != known["hash"]:
        raise UserError(f"the log {path} has changed since the checkpoint was trained; give the log to use with --data")
    return store


def _same_schema(schema: Schema, make_env: Callable[[], Any], source: PathLike) -> None:
    """UserError where the environment does not fit a checkpoint."""
    env = make_env()
    found = env.unwrapped.schema()
    env.close()
    for name in ("task", "cameras", "action_size", "action_repeat"):
        mine, its = getattr(schema, name), getattr(found, name)
        if mine != its:
            raise UserError(f"checkpoint {source} was trained for {name} {mine!r}, but the environment has {its!r}")


def _compare_frozen(run: Run, source: Path, make_env: Any, seeds: Sequence[int], workers: int | None) -> None:
    """frozen.jsonl: the offline policy, unchanged, on the layouts of fine-tuning. A rerun does what is missing."""
    done = {row["seed"] for row in run.rows("frozen.jsonl")}
    todo = [seed for seed in seeds if seed not in done]
    if not todo:
        return
    document = _evaluate(
        [("frozen", partial(wire.load_policy, os.fspath(source)), {})], make_env, todo, "", None, 25.0, workers,
        title="frozen policy on the same layouts", allow_any_seeds=True,
    )  # fmt: skip
    for row in document["policies"][0]["episodes"]:
        run.append("frozen.jsonl", {"episode": seeds.index(row["seed"]), **row})


def evaluate(
    checkpoints: Mapping[str, PathLike] | Iterable[PathLike],
    *,
    task: str | None = None,
    scenario: str | Scenario | None = None,
    episodes: int = 20,
    seed: int = 0,
    cost_limit: float = 10.0,
    samples: int | None = None,
    quality: str = "fast",
    out: PathLike | None = None,
    record: int = 0,
    workers: int | None = None,
) -> dict[str, Any]:
    """All checkpoints on the same held-out layouts; returns the evaluation document (see ``fosp.evaluation``).

    ``checkpoints`` maps labels to run folders or checkpoints. ``out`` is a folder that gets
    ``evaluation/<scenario>.json`` and, for ``record`` layouts of each policy, ``rollouts/*.npz`` for the report. The
    score is also noted in each checkpoint, for ``verify``.
    """
    from fosp.envs import find_scenario, find_task, suite_hash

    parallel.refuse("evaluate")
    given = checkpoints if isinstance(checkpoints, Mapping) else None
    named = by_label([(str(k), p) for k, p in given.items()] if given is not None else [("", p) for p in checkpoints])
    if not named:
        raise UserError("there is no checkpoint to evaluate; name at least one run folder")
    _check_evaluation(episodes, record, samples, out, cost_limit)
    paths = {label: checkpoint.resolve(path) for label, path in named.items()}
    facts = {label: checkpoint.read_config(path) for label, path in paths.items()}
    task = find_task(task or next(iter(facts.values()))["schema"]["task"]).id
    found = find_scenario(scenario)
    make_env = partial(wire.make_env, task, scenario, quality)
    scenario = _name(scenario)
    for label, path in paths.items():
        _same_schema(Schema.from_json(facts[label]["schema"]), make_env, path)
    seeds = _layouts(HELD_OUT_SEEDS, seed, episodes)
    if out is not None:  # a folder that cannot be used is better known before the work than after
        (Path(out) / "evaluation").mkdir(parents=True, exist_ok=True)
    entries = [
        (label, partial(wire.load_policy, os.fspath(path), samples=samples), _meta(path, facts[label], samples))
        for label, path in paths.items()
    ]
    digest = suite_hash(task, found, seeds)
    texts = {"task": find_task(task).text, "scenario": found.text}
    keep = None
    if out is not None and record:
        recorder = _Recorder(Path(out) / "rollouts", tuple(paths.items()), scenario)
        keep = Recording(frozenset(seeds[:record]), recorder)
    document = _evaluate(
        entries, make_env, seeds, task, scenario, cost_limit, workers, digest=digest, texts=texts, recording=keep
    )
    for policy, path in zip(document["policies"], paths.values(), strict=True):
        _note_score(path, document, policy, {"samples": samples, "quality": quality})
    if out is not None:
        save_document(document, Path(out) / "evaluation" / f"{scenario or 'nominal'}.json")
    return document


def _evaluate(
    entries: Any, make_env: Any, seeds: Sequence[int], task: str, scenario: str | None, cost_limit: float,
    workers: int | None, *, title: str = "evaluate", digest: str = "", texts: Mapping[str, str] | None = None,
    allow_any_seeds: bool = False, recording: Recording | None = None,
) -> dict[str, Any]:  # fmt: skip
    total = len(entries) * len(seeds)
    with Progress(title, total, "episodes") as bar:
        return run_evaluation(
            entries, make_env, list(seeds), task=task, scenario=scenario, cost_limit=cost_limit, suite_hash=digest,
            texts=texts, workers=_workers(workers, total), allow_any_seeds=allow_any_seeds,
            recording=recording,
            progress=lambda label, done, total: bar.advance(done - bar.done),
        )  # fmt: skip


def _workers(workers: int | None, jobs: int) -> int:
    if workers is not None and workers < 0:
        raise UserError(f"--workers {workers} must not be negative; 0 does all in one process")
    return min(jobs, os.cpu_count() or 1) if workers is None else workers


def by_label(pairs: Iterable[tuple[str, PathLike]]) -> dict[str, PathLike]:
    """Label -> checkpoint; an empty label becomes the name of the run folder. UserError where one comes twice."""
    found: dict[str, PathLike] = {}
    for given, path in pairs:
        folder = checkpoint.resolve(path)
        run = folder.parent.parent if folder.parent.name == "checkpoints" else folder
        label = given or run.name
        if label in found:
            raise UserError(f"two checkpoints have the label {label!r}; give each its own as LABEL=PATH")
        if os.sep in label:
            raise UserError(f"label {label!r} holds {os.sep!r}, but it names files; choose another, as in LABEL=PATH")
        found[label] = path
    return found


def _check_evaluation(
    episodes: int, record: int, samples: int | None, out: PathLike | None, cost_limit: float
) -> None:  # fmt: skip
    if not (math.isfinite(cost_limit) and cost_limit >= 0):
        raise UserError(f"--cost-limit {cost_limit:g} must be a cost per episode, at least 0")
    if episodes < 1:
        raise UserError(f"--episodes {episodes} must be at least 1")
    if not 0 <= record <= episodes:
        raise UserError(f"--record {record} must lie between 0 and the {episodes} episodes")
    if record and out is None:
        raise UserError(f"--record {record} needs --out, the folder that gets the rollouts")
    if samples is not None and samples < 0:
        raise UserError(f"--samples {samples} must not be negative")


def _meta(path: Path, facts: Mapping[str, Any], samples: int | None) -> dict[str, Any]:
    method = "expansion" if facts.get("expanded") else facts["method"]
    kind = {"expansion": "finetune", "cloning": "bc"}.get(method, "pretrain")
    return {
        "checkpoint": os.path.relpath(path), "kind": kind, "method": method, "updates": facts["updates"],
        "samples": samples,
    }  # fmt: skip


def _note_score(path: Path, document: Mapping[str, Any], policy: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Add the score to the checkpoint's scores.json, one entry per suite; read-only checkpoints stay as they are."""
    file = path / "scores.json"
    scores = _scores(file) if file.exists() else {}
    keys = ("task", "scenario", "suite_hash", "seeds", "cost_limit", "created")
    scores[document["suite_hash"]] = {
        **{key: document[key] for key in keys},
        **made,
        "episodes": policy["episodes"],
        "summary": policy["summary"],
    }
    try:
        temporary = file.with_suffix(".tmp")
        temporary.write_text(json.dumps(scores, indent=1) + "\n")
        temporary.replace(file)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise


def _scores(file: Path) -> dict[str, Any]:
    """Suite hash -> recorded score."""
    try:
        scores = json.loads(file.read_text())
        if not all(isinstance(score["summary"], dict) for score in scores.values()):
            raise ValueError("a score has no summary")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{file} is damaged ({error}); delete it and evaluate the checkpoint again") from error
    return scores


class _Recorder(NamedTuple):
    """Writes an evaluated episode with everything that the report shows: ``rollout_<label>_<seed>_<scenario>.npz``."""

    folder: Path
    named: tuple[tuple[str, Path], ...]  # label and checkpoint of each policy
    scenario: str | None

    def __call__(self, index: int, policy: wire.AgentPolicy, episode: Episode, overview: np.ndarray) -> None:
        from fosp.agent.preview import open_loop

        label, path = self.named[index]
        imagined, origin = open_loop(policy.agent, policy.schema, episode)
        front, back = list(policy.schema.cameras)
        seed, totals = episode.info["seed"], summary(episode)
        meta = {
            "task": policy.schema.task, "scenario": self.scenario, "seed": seed, "label": label,
            "checkpoint": os.path.relpath(path), "return": totals["return"], "cost": totals["cost"],
            "step_seconds": policy.schema.step_seconds,
        }  # fmt: skip
        self.folder.mkdir(parents=True, exist_ok=True)
        traces = ("violation_probability", "reward_value", "cost_value")
        said: dict[str, Any] = {name: episode.diagnostics[name] for name in traces}
        chosen = np.nan_to_num(episode.diagnostics["chosen"], nan=-1).astype(np.int64)
        np.savez_compressed(
            self.folder / f"rollout_{label}_{seed}_{self.scenario or 'nominal'}.npz",
            image_front=episode.images[front], image_back=episode.images[back],
            imagined_front=imagined[front], imagined_back=imagined[back], imagined_from=origin,
            overview=overview, action=episode.action, reward=episode.reward, cost=episode.cost,
            chosen=chosen, meta_json=np.array(json.dumps(meta)), **said,
        )  # fmt: skip


def write_report(runs: Iterable[PathLike], out: PathLike = "report.html", *, title: str | None = None) -> Path:
    """One self-contained HTML page about run folders. Returns its path."""
    from fosp.report.page import build_report

    return build_report([Path(run) for run in runs], Path(out), title=title)


def verify(path: PathLike, *, suite: str | None = None, workers: int | None = None) -> dict[str, Any]:
    """Check a checkpoint's files, then run a recorded score again. Returns {"holds", "recorded", "found", ...}.

    The score holds where the mean return and mean cost found here lie within the recorded 95 % intervals; "identical"
    tells on how many layouts even the episode is the same number for number.
    """
    folder = checkpoint.resolve(path)
    checkpoint.check_files(folder)
    file = folder / "scores.json"
    if not file.exists():
        raise UserError(f"checkpoint {folder} has no recorded score; `fosp evaluate {path}` records one")
    scores = _scores(file)
    if suite is not None and suite not in scores:
        raise unknown(f"suite of the checkpoint {folder}", suite, scores)
    recorded = scores[suite] if suite is not None else next(iter(scores.values()))
    from fosp.envs import suite_hash

    now = suite_hash(recorded["task"], recorded["scenario"], recorded["seeds"])
    if now != recorded["suite_hash"]:
        raise UserError(
            f"the layouts of suite {recorded['suite_hash']} are {now} in this version; the score was made with another "
            "definition of the task and cannot be checked here"
        )
    make_env = partial(wire.make_env, recorded["task"], recorded["scenario"], recorded["quality"])
    entry = ("found", partial(wire.load_policy, os.fspath(folder), samples=recorded["samples"]), {})
    document = _evaluate(
        [entry], make_env, recorded["seeds"], recorded["task"], recorded["scenario"], recorded["cost_limit"], workers,
        title="verify", digest=now,
    )  # fmt: skip
    found = document["policies"][0]
    within = {
        key: recorded["summary"][key]["low"] <= found["summary"][key]["mean"] <= recorded["summary"][key]["high"]
        for key in ("return", "cost")
    }
    pairs = zip(recorded["episodes"], found["episodes"], strict=True)
    same = sum(a["return"] == b["return"] and a["cost"] == b["cost"] for a, b in pairs)
    return {
        "checkpoint": os.fspath(folder), "suite": now, "holds": all(within.values()), "within": within,
        "identical": same, "episodes": len(found["episodes"]),
        "recorded": recorded["summary"], "found": found["summary"],
    }  # fmt: skip
