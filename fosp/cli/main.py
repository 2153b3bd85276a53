"""The command ``fosp``: finds the verb, reads its options, runs it, and turns what goes wrong into one sentence.

A verb is a module of this folder with a frozen dataclass ``Options``, whose docstring and field docstrings are its
help, and ``run(options) -> int``, which gives the exit code. Its row in ``VERBS`` is all that this file knows of it:
the module is imported when the verb is used, so that ``fosp --help`` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from fosp.cli.errors import EXIT_FAILED, explain
from fosp.types import unknown


@dataclass(frozen=True)
class Verb:
    module: str  # with Options and run
    help: str  # one line for the list of verbs


#: In the order in which a newcomer meets them. Two words ("data show") make a verb of a group.
VERBS: dict[str, Verb] = {
    "doctor": Verb("fosp.cli.doctor", "try what this machine offers (renderer, codec, devices) and print what to mend"),
    "demo": Verb("fosp.cli.demo", "the whole road in about 20 minutes: collect, pretrain, fine-tune, evaluate, report"),
    "parity": Verb("fosp.cli.parity", "replay recordings of the original Safety-Gymnasium and tell the differences"),
    "suites": Verb("fosp.cli.suites", "list or draw the unseen scenarios"),
    "behaviours": Verb("fosp.cli.behaviours", "play the scripted behaviours in every task and tell return and cost"),
    "collect": Verb("fosp.cli.collect", "write a log of episodes by scripted behaviours or a trained policy"),
    "data show": Verb("fosp.cli.data_show", "list what a dataset holds"),
    "data inspect": Verb("fosp.cli.data_inspect", "draw a dataset"),
    "pretrain": Verb("fosp.cli.pretrain", "learn a safe policy from a log alone"),
    "finetune": Verb("fosp.cli.finetune", "go on learning, safely, where the policy is deployed"),
    "evaluate": Verb("fosp.cli.evaluate", "score checkpoints on the same held-out layouts"),
    "report": Verb("fosp.cli.report", "one HTML page about runs and evaluations"),
    "verify": Verb("fosp.cli.verify", "check whether a checkpoint's recorded score holds here"),
    "study": Verb("fosp.cli.study", "the whole road at full length, over tasks, seeds and methods"),
    "skill": Verb("fosp.cli.skill", "minutes of training until a policy beats its log, as a curve"),
    "bench": Verb("fosp.cli.bench", "measure training, acting, environment and data path: speed and memory"),
    "version": Verb("fosp.cli.version", "the versions of fosp and of what its results depend on"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` (default: what the process was called with); returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = dispatch(words)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader of a pipe has seen enough, as in `fosp data show D | head`
        _abandon_stdout()
        return EXIT_FAILED
    except SystemExit as stop:  # tyro, after it has printed help
        return stop.code if isinstance(stop.code, int) else 0
    except (Exception, KeyboardInterrupt) as error:
        told = explain(error)
        if told is None:
            raise
        sentence, code = told
        print(f"fosp: {sentence}", file=sys.stderr)
        return code


def dispatch(words: Sequence[str], verbs: dict[str, Verb] | None = None) -> int:
    """Run the verb that ``words`` begin with. Raises UserError where there is no such verb or option."""
    verbs = VERBS if verbs is None else verbs
    if not words or words[0] in ("-h", "--help"):
        print(overview(verbs))
        return 0
    if words[0] == "--version":
        words = ["version", *words[1:]]
    name = find(words, verbs)
    if name is None:  # a group alone
        print(overview({verb: row for verb, row in verbs.items() if verb.startswith(f"{words[0]} ")}))
        return 0
    from fosp.cli.options import parse  # tyro, which the list of verbs does without

    module = importlib.import_module(verbs[name].module)
    options = parse(module.Options, words[len(name.split()) :], f"fosp {name}")
    return module.run(options)


def find(words: Sequence[str], verbs: dict[str, Verb]) -> str | None:
    """The verb that ``words`` begin with; None for the name of a group alone or with a request for help."""
    first, second = words[0], words[1] if len(words) > 1 else ""
    if first in verbs:
        return first
    members = {verb.partition(" ")[2] for verb in verbs if verb.startswith(f"{first} ")}
    if members:
        if second in members:
            return f"{first} {second}"
        if second in ("", "-h", "--help"):
            return None
        raise unknown(f"verb after {first!r}", second, members)
    if first.startswith("-"):
        raise unknown("option before the verb", first, ["--help", "--version"])
    raise unknown("verb", first, {verb.partition(" ")[0] for verb in verbs} | set(verbs))


def overview(verbs: dict[str, Verb]) -> str:
    width = max(map(len, verbs))
    rows = "\n".join(f"  {name:<{width}}  {verb.help}" for name, verb in verbs.items())
    return f"usage: fosp VERB [OPTIONS]\n\n{rows}\n\n`fosp VERB --help` shows the options of a verb."


def _abandon_stdout() -> None:
    """Let what is still buffered go nowhere, or Python complains of the broken pipe once more when it exits."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
