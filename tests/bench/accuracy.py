"""Trains the five recipes in full on MNIST and prints our figures next to the published ones.

    python tests/bench/accuracy.py --data-dir FOLDER            all models, seeds 0, 1 and 2 (two hours on two cores)
    python tests/bench/accuracy.py --models softmax,mlp --seeds 0
    python tests/bench/accuracy.py --epochs cnn:1=5,cnn:2=5     seeds 1 and 2 of cnn for five epochs only
    python tests/bench/accuracy.py --table                      only the table, from the existing runs

Runs are kept under --out; an existing run is resumed or, if it is complete, used as it is.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).resolve().parents[2]
# Published by the authors of the recipes: (epochs, test loss and accuracy of the last epoch: Keras CPU, TensorFlow GPU,
# hand-written library), and the accuracy to reach: the best of them minus 0.0010.
PUBLISHED = {
    "softmax": (20, (0.0189, 0.9088), (0.0189, 0.9089), (0.0189, 0.9087), 0.9079),
    "mlp": (50, (0.0829, 0.9853), (0.0854, 0.9851), None, 0.9843),
    "cnn": (20, (0.0199, 0.9942), (0.0218, 0.9940), (0.0213, 0.9936), 0.9932),
    "separable_cnn": (30, (0.0337, 0.9935), (0.0361, 0.9930), None, 0.9925),
    "bilstm": (30, (0.0415, 0.9907), (0.0441, 0.9905), (0.0382, 0.9905), 0.9897),
}

TITLES = (
    "model", "epochs", "runs", "train loss", "test loss", "test accuracy", "by seed", "needed", "reached",
    "published test accuracy",
)  # fmt: skip


def main() -> int:
    flags = parse_flags()
    for model in flags.models:
        for seed in flags.seeds:
            if not flags.table:
                train(model, seed, flags.epochs.get((model, seed), PUBLISHED[model][0]), flags)
    print(table(flags.models, flags.seeds, flags.out))
    return 0


def parse_flags() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(PUBLISHED), type=lambda text: text.split(","))
    parser.add_argument("--seeds", default="0,1,2", type=lambda text: [int(seed) for seed in text.split(",")])
    parser.add_argument("--epochs", default={}, type=parse_epochs, help="MODEL:SEED=N,…")
    parser.add_argument(
        "--data-dir", help="a folder with the four MNIST files (default: where `nnc train` looks for them)"
    )
    parser.add_argument("--out", default=Path("runs/accuracy"), type=Path)
    parser.add_argument("--table", action="store_true", help="print only the table, from the existing runs")
    return parser.parse_args()


def parse_epochs(text: str) -> dict[tuple[str, int], int]:
    found = {}
    for item in text.split(","):
        run, epochs = item.split("=")
        model, seed = run.split(":")
        found[model, int(seed)] = int(epochs)
    return found


def train(model: str, seed: int, epochs: int, flags: argparse.Namespace) -> None:
    """One run through the command line, as a user would start it."""
    folder = flags.out / f"{model}-{seed}"
    command = [sys.executable, "-m", "compiler", "train"]
    if (folder / "last.safetensors").exists():
        command += ["--resume", str(folder)]
    else:
        command += [str(ROOT / "models" / f"{model}.nn"), "--out", str(folder), "--seed", str(seed)]
    command += ["--epochs", str(epochs), "--data", "mnist", *(["--data-dir", flags.data_dir] if flags.data_dir else [])]
    print(f"== {model}, seed {seed}, {epochs} epochs", flush=True)
    subprocess.run(command, check=True, cwd=ROOT)


def history(folder: Path) -> list[dict]:
    """The epochs of a run, from its log."""
    log = folder / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [line for line in lines if "epoch" in line]


def table(models: list[str], seeds: list[int], out: Path) -> str:
    lines = ["| " + " | ".join(TITLES) + " |", "|" + "---|" * len(TITLES)]
    for model in models:
        epochs, *published, needed = PUBLISHED[model]
        runs = [epoch for seed in seeds if (epoch := last_epoch(out / f"{model}-{seed}", epochs))]
        if runs:
            accuracy = mean(run["test"]["accuracy"] for run in runs)
            cells = [
                model,
                epochs,
                len(runs),
                *(f"{mean(run[part]['loss'] for run in runs):.4f}" for part in ("train", "test")),
            ]
            cells += [f"**{accuracy:.4f}**", " ".join(f"{run['test']['accuracy']:.4f}" for run in runs), needed]
            cells += ["yes" if accuracy >= needed else "no", " / ".join(f"{p[1]:.4f}" for p in published if p)]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join([*lines, "", *first_epochs(models, seeds, out)])


def last_epoch(folder: Path, epochs: int) -> dict | None:
    """The last epoch of a run, if it is complete."""
    done = history(folder)
    return done[-1] if done and done[-1]["epoch"] == epochs else None


def first_epochs(models: list[str], seeds: list[int], out: Path) -> list[str]:
    """Test accuracy of the first five epochs, one row per run."""
    lines = [
        "| run | epoch 1 train loss / test loss | test accuracy, epochs 1 to 5 | last epoch |",
        "|---|---|---|---|",
    ]
    for model in models:
        for seed in seeds:
            if done := history(out / f"{model}-{seed}"):
                losses = f"{done[0]['train']['loss']:.4f} / {done[0]['test']['loss']:.4f}"
                curve = " ".join(f"{epoch['test']['accuracy']:.4f}" for epoch in done[:5])
                lines.append(f"| {model}, seed {seed} | {losses} | {curve} | {done[-1]['epoch']} |")
    return lines


if __name__ == "__main__":
    sys.exit(main())
