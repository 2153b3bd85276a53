"""Builds objects from configurations and checkpoints: the only place that knows everything."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fosp import config as mechanism
from fosp import parallel
from fosp.agent.actor import Actor
from fosp.agent.agent import Agent, Learner
from fosp.agent.encoded import EncodedLog
from fosp.agent.mirror import mirrored
from fosp.agent.policy import AgentPolicy
from fosp.data.rollout import rollout
from fosp.data.sampler import MixedSampler, Prefetcher, Sampler
from fosp.data.store import Store
from fosp.parallel import local_device
from fosp.presets import RunConfig
from fosp.training import checkpoint
from fosp.training.offline import pinned, to_tensors
from fosp.training.resident import Resident, fits
from fosp.types import Batch, Episode, Schema, UserError

if TYPE_CHECKING:
    from fosp.envs import Scenario  # MuJoCo is slow to import

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # names and numbers of malloc.h of the GNU C library


def pick_device(name: str) -> torch.device:
    """ "auto" is the first CUDA device where there is one. UserError for a device that is not there."""
    if name == "auto":
        return local_device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"--device {name} cannot be used ({reason}); take cpu, cuda or auto") from error
    return local_device(name) if name in ("cpu", "cuda") else torch.device(name)


def keep_memory() -> None:
    """Lets this process keep freed memory for its next tensors, where the C library is that of GNU.

    By default it gives large pieces back to the system at once and gets them anew, empty, page by page: up to a tenth
    of an update went there. The price is a somewhat higher peak (docs/speed.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:  # musl has none
        mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def has_bfloat16(device: torch.device) -> bool:
    """Whether bfloat16 is computed by the hardware; emulated, it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported()
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    return "avx512_bf16" in flags or "amx_bf16" in flags


def pick_autocast(precision: str, device: torch.device) -> Callable[[], AbstractContextManager]:
    """The one place that decides on precision. Returns a maker of contexts."""
    if precision not in ("auto", "float32", "bfloat16"):
        raise UserError(f"training.precision is {precision!r}; it must be auto, float32 or bfloat16")
    if precision == "bfloat16" or (precision == "auto" and has_bfloat16(device)):
        return partial(torch.autocast, device.type, dtype=torch.bfloat16)
    return nullcontext


def pick_compiler(
    chosen: bool | None, device: torch.device
) -> Callable[[Callable[..., Any]], Callable[..., Any]] | None:  # fmt: skip
    """The one place that decides on compiling: None leaves functions as they are, and is the choice on a processor.

    On a GPU each function becomes a CUDA graph: all shapes are static, and random numbers are drawn outside. Processes
    that learn together exchange tensors in the midst of it, and do without.
    """
    shared = parallel.world_size() > 1
    if not (device.type == "cuda" and not shared if chosen is None else chosen):
        return None
    if shared:
        raise UserError("--compile does not go with several processes under torchrun; leave it out, or start one")
    if device.type == "cpu" and shutil.which(os.environ.get("CXX", "g++")) is None:
        raise UserError("--compile needs a C++ compiler, and there is no g++ (nor a CXX that is one); leave it out")
    mode = "reduce-overhead" if device.type == "cuda" else "default"
    return partial(torch.compile, fullgraph=True, dynamic=False, mode=mode)


def source_of(sampler: Sampler | MixedSampler, device: torch.device) -> Resident | Prefetcher:
    """What gives the batches of ``sampler`` soonest: the GPU's own memory where the log fits, else the next one ready.

    A mixed sampler draws from episodes that are still to come, which do not lie on the GPU.
    """
    if isinstance(sampler, Sampler) and fits(sampler.store, device):
        return Resident(sampler, device)
    return Prefetcher(sampler, prepare=pinned) if device.type == "cuda" else Prefetcher(sampler)


def fit_whitening(agent: Agent, store: Store, seed: int, frames: int = 200) -> None:
    """Colour statistics of the log, from ``frames`` random rows of it."""
    strength = agent.model.config.whitening
    if not strength:
        return
    rng = np.random.default_rng(seed)
    colours = []
    for index in rng.integers(len(store), size=frames):
        episode = store.episode(int(index))
        row = int(rng.integers(len(episode)))
        colours += [np.asarray(image[row]).reshape(-1, 3)[::5] for image in episode.images.values()]
    agent.model.whitening.fit(torch.from_numpy(np.concatenate(colours)).float() / 255, strength)


def build_learner(
    config: RunConfig, schema: Schema, device: torch.device, kind: type[Learner] = Learner
) -> Learner:  # fmt: skip
    """A fresh agent with its optimisers."""
    torch.manual_seed(config.seed)  # initial weights; everything later draws from the learner's own generator
    agent = Agent(config.model, config.agent, schema)
    return wrap_learner(agent, config, device, kind)


def wrap_learner(agent: Agent, config: RunConfig, device: torch.device, kind: type[Learner] = Learner) -> Learner:
    """Precision and compiling as configured."""
    if device.type == "cpu":
        keep_memory()
    if config.training.precision == "float32":
        agent.model.leave_to_autograd()
    autocast = pick_autocast(config.training.precision, device)
    compiled = pick_compiler(config.training.compile, device)
    return kind(agent, config.optimiser, config.seed, device, autocast, compiled)


def encode_log(learner: Learner, store: Store, config: RunConfig, group: int = 8) -> EncodedLog:
    """The log as the learner's world model sees it now, mirrored too if it may be; groups of equally long episodes."""
    lengths: dict[int, list[int]] = {}
    for index, row in enumerate(store.manifest):
        lengths.setdefault(row["rows"], []).append(index)
    groups = [same[i : i + group] for same in lengths.values() for i in range(0, len(same), group)]

    def batches() -> Iterator[Batch]:
        for indices in groups:
            episodes = [store.episode(index) for index in indices]
            images = {name: np.stack([e.images[name] for e in episodes]) for name in store.schema.cameras}
            fields = {name: np.stack([getattr(e, name) for e in episodes]) for name in EncodedLog.FIELDS}
            batch = to_tensors(Batch(images=images, **fields), learner.device)
            yield batch
            if learner.agent.mirror:
                yield mirrored(batch, learner.agent.mirror)

    training = config.training
    return EncodedLog(
        learner.agent.model, batches(), training.latent_batch, training.length, config.seed, learner.autocast,
        learner.agent.team.own(training.latent_batch),
    )  # fmt: skip


def on_trained_model(config: RunConfig, store: Store, model_from: str | os.PathLike[str]) -> tuple[RunConfig, Agent]:
    """For learning what to do on that checkpoint's world model, which stays as it is: all updates are of the second
    stage, on the encoded log. Returns the configuration with the world model's sizes, and the checkpoint's agent."""
    trained, facts = load_agent(model_from)
    store.require(Schema.from_json(facts["schema"]))
    training = replace(config.training, updates=0, latent_updates=config.training.latent_updates or 1000)
    return replace(config, model=trained.model.config, training=training), trained


def build_pretraining(
    config: RunConfig, store: Store, device: torch.device, method: str, model_from: str | os.PathLike[str] | None
) -> tuple[Learner, RunConfig]:
    """A fresh learner of the method, "fosp" or "cloning"; ``model_from``: on that checkpoint's frozen world model.

    Cloning then has the checkpoint's agent too, so that its policy is as large as the one that it is compared with.
    """
    from fosp.baselines.cloning import CloningLearner

    trained = None
    if model_from is not None:
        config, trained = on_trained_model(config, store, model_from)
        if method == "cloning":
            config = replace(config, agent=trained.config)
    learner = build_learner(config, store.schema, device, CloningLearner if method == "cloning" else Learner)
    if trained is None:
        fit_whitening(learner.agent, store, config.seed)
    else:
        learner.agent.model.load_state_dict(trained.model.state_dict())
    return learner, config


def build_expansion(agent: Agent, config: RunConfig, device: torch.device) -> Learner:
    """A learner that fine-tunes: the checkpoint's policy is frozen as pi_off, the other starts from it or anew."""
    changed = [f"model.{key}" for key in mechanism.diff(agent.model.config, config.model)]
    sizes = ("units", "layers", "bins")
    changed += [f"agent.{key}" for key in sizes if getattr(agent.config, key) != getattr(config.agent, key)]
    if changed:
        raise UserError(f"{changed[0]} cannot be changed in fine-tuning; its networks are those of the checkpoint")
    torch.manual_seed(config.seed)
    agent.config = config.agent
    agent.constraint.config = config.agent.constraint
    agent.train()
    agent.expand()
    if config.online.fresh_actor:
        size = (agent.model.feature_size, agent.model.actions, config.agent.units, config.agent.layers)
        agent.restart_actor(Actor(*size).to(device))
    # Online, everything goes on learning from images, whatever the stages of pretraining were.
    optimiser = replace(config.optimiser, behaviour_every=max(1, config.optimiser.behaviour_every))
    return wrap_learner(agent, replace(config, optimiser=optimiser), device)


class OnlineActing:
    """Acts as an expanded agent with given weights: exploring, in environments of its own, on the processor."""

    def __init__(
        self, config: RunConfig, schema: Schema, make_env: Callable[[], Any], seed: int, scenario: str | None
    ) -> None:
        self._agent = Agent(config.model, config.agent, schema).eval()
        self._agent.expand()
        self._schema, self._make_env, self._seed = schema, make_env, seed
        self._info = {"behaviour": "expansion", "scenario": scenario}
        self._envs: list[Any] = []

    def __call__(self, weights: Mapping[str, torch.Tensor], seeds: Sequence[int]) -> Iterator[Episode]:
        self._agent.load_state_dict(dict(weights))
        while len(self._envs) < len(seeds):
            self._envs.append(self._make_env())
        policy = AgentPolicy(self._agent, self._schema, explore=True, seed=self._seed, frozen=True)
        return rollout(policy, self._envs[: len(seeds)], seeds, info=self._info)

    def close(self) -> None:
        for env in self._envs:
            env.close()


def describe(config: RunConfig, schema: Schema, method: str, dataset: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """What a checkpoint says of itself besides its weights."""
    return {
        "method": method,
        "schema": schema.to_json(),
        "observation": {name: {"dtype": "uint8", "shape": list(shape)} for name, shape in schema.cameras.items()},
        "action": {"dtype": "float32", "shape": [schema.action_size], "low": -1.0, "high": 1.0},
        "config": mechanism.to_tree(config),
        "dataset": dict(dataset),
        **more,
    }


def dataset_facts(store: Store, path: str | os.PathLike[str]) -> dict[str, Any]:
    """The log in short, as it goes into run.json and every checkpoint."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in store.manifest:
        groups.setdefault(row.get("behaviour", "unknown"), []).append(row)

    def means(rows: list[dict[str, Any]]) -> dict[str, float | None]:
        costs = [row["cost"] for row in rows if row.get("cost") is not None]
        mean_return = float(np.mean([row["return"] for row in rows]))
        return {"episodes": len(rows), "return": mean_return, "cost": float(np.mean(costs)) if costs else None}

    return {
        "path": os.path.relpath(path),
        "hash": store.hash,
        "episodes": len(store),
        "steps": store.num_steps,
        "summary": means(store.manifest),
        "behaviours": {name: means(rows) for name, rows in sorted(groups.items())},
    }


def load_agent(path: str | os.PathLike[str], device: torch.device | str = "cpu") -> tuple[Agent, dict[str, Any]]:
    """The agent of a checkpoint (run folder or checkpoint folder) and its config.json. UserError where it cannot be."""
    folder = checkpoint.resolve(path)
    facts = checkpoint.read_config(folder)
    run = mechanism.from_tree(RunConfig(), facts["config"], str(folder / "policy" / "config.json"))
    agent = Agent(run.model, run.agent, Schema.from_json(facts["schema"]))
    if facts.get("expanded"):
        agent.expand()
    try:
        agent.load_state_dict(checkpoint.read_tensors(folder, "policy/model"))
    except RuntimeError as error:
        raise UserError(f"checkpoint {folder} does not hold the weights that its config.json describes") from error
    return agent.to(device).eval(), facts


def load_policy(
    path: str | os.PathLike[str],
    device: str = "cpu",
    explore: bool = False,
    seed: int = 0,
    samples: int | None = None,
) -> AgentPolicy:
    """A policy that acts: ``carry = policy.initial()``, then ``action, carry = policy.act(carry, observation)``.

    ``path`` is a run folder or a checkpoint. ``explore`` samples instead of taking the best action. ``samples``
    overrides how many further candidates each policy proposes to the critics.
    """
    agent, facts = load_agent(path, pick_device(device))
    if samples is not None:
        expansion = replace(agent.config.expansion, samples=samples)
        agent.config = replace(agent.config, expansion=expansion)
    return AgentPolicy(agent, Schema.from_json(facts["schema"]), explore, seed, frozen=True)


def make_env(task: str, scenario: str | Scenario | None = None, quality: str = "fast", **options: Any) -> Any:
    """The environment of a task; a function of a module, so that worker processes can be given it."""
    from fosp import envs

    return envs.make(task, scenario=scenario, quality=quality, **options)
