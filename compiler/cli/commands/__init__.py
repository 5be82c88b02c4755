"""The commands by name. They call the driver and the runtime, and print; heavy modules are imported where needed."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from compiler.cli.commands.inspect import check_command, emit_command, opt_command, plan_command, summary_command
from compiler.cli.commands.measure import annotate_command, explain_fusion_command, profile_command
from compiler.cli.commands.numerics import replay_command
from compiler.cli.commands.run import eval_command, predict_command, train_command
from compiler.cli.commands.verify import verify_resume_command

COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {  # an exit code, if it is not 0
    "train": train_command,
    "eval": eval_command,
    "predict": predict_command,
    "replay": replay_command,
    "summary": summary_command,
    "check": check_command,
    "emit": emit_command,
    "opt": opt_command,
    "plan": plan_command,
    "profile": profile_command,
    "annotate": annotate_command,
    "explain-fusion": explain_fusion_command,
    "verify-resume": verify_resume_command,
}
