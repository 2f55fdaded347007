"""Training by processes of its own: killed, asked to stop, on two ranks, and without other packages."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.trainer.conftest import MakeCache
from tests.trainer.runs import SMALL, history, overrides, run_cli
from trainer.fit import FitRequest, fit
from trainer.settings import load_settings

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def trainer(*arguments: object, launcher: tuple[str, ...] = ("-m", "trainer.cli")) -> list[str]:
    return [sys.executable, *launcher, *map(str, arguments)]


def run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def wait_for_steps(process: subprocess.Popen, folder: Path, steps: int) -> None:
    deadline = time.monotonic() + 120
    while not (folder / "history.jsonl").exists() or len((folder / "history.jsonl").read_text().splitlines()) < steps:
        assert process.poll() is None and time.monotonic() < deadline, "too few steps were taken"
        time.sleep(0.01)


@pytest.mark.kill
def test_a_killed_run_resumes_to_the_loss_curve_of_an_undisturbed_one(toy: str, tmp_path: Path) -> None:
    settings = overrides("optimiser.epochs=8", "schedule.stage2_epoch=3")
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(trainer("fit", toy, "--out", whole, *settings))
    process = subprocess.Popen(
        trainer("fit", toy, "--out", killed, *settings), cwd=REPOSITORY, stderr=subprocess.DEVNULL, env=ENVIRONMENT
    )
    wait_for_steps(process, killed, 12)
    process.send_signal(signal.SIGKILL)
    process.wait()
    stopped = len(history(killed))
    run(trainer("fit", toy, "--out", killed, "--resume", *settings))
    assert stopped < len(history(whole)), "the run had finished before it was killed"
    assert history(killed) == history(whole)
    states = [torch.load(folder / "last.pt", weights_only=True)["model"] for folder in (whole, killed)]
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name]), name


def ignore_interrupt() -> None:
    """Start as a shell script starts its background jobs."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.kill
@pytest.mark.parametrize(
    "number, start", [(signal.SIGINT, None), (signal.SIGINT, ignore_interrupt), (signal.SIGTERM, None)]
)
def test_a_run_that_is_asked_to_stop_keeps_all_finished_steps(
    toy: str, tmp_path: Path, number: signal.Signals, start: Callable[[], None] | None
) -> None:
    command = trainer("fit", toy, "--out", tmp_path / "run", *overrides("optimiser.epochs=60", "stream.workers=1"))
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=start,
        start_new_session=True,
    )
    wait_for_steps(process, tmp_path / "run", 20)
    if number == signal.SIGINT:  # a terminal signals all processes, `kill` one
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    stderr = process.communicate(timeout=60)[1]
    assert "--resume" in stderr and "Traceback" not in stderr
    assert process.returncode == 130
    state = torch.load(tmp_path / "run/last.pt", weights_only=True)
    assert state["step"] == len(history(tmp_path / "run")) >= 20


TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone")


@pytest.mark.slow
@pytest.mark.parametrize("ends_with", ["success", "an error"])
def test_no_thread_of_the_process_group_outlives_a_training(toy: str, tmp_path: Path, ends_with: str) -> None:
    """A thread of Gloo that is alive when the interpreter exits aborts the process now and then."""
    code = (
        "import os, sys; from pathlib import Path; from trainer.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: print('exit code', stop.code, file=sys.stderr)\n"
        "names = [(task / 'comm').read_text() for task in Path('/proc/self/task').iterdir()]\n"
        "print('threads of Gloo:', sum('gloo' in name for name in names), file=sys.stderr)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    more = ["optimiser.lr=1e12", "optimiser.max_gradient_norm=null"] if ends_with == "an error" else []
    settings = overrides("optimiser.epochs=2", *more)
    command = trainer("fit", toy, "--out", tmp_path / "run", *settings, launcher=(*TORCHRUN, str(script)))
    done = subprocess.run(command, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("threads of Gloo: 0") == 2, done.stderr
    assert done.stderr.count(f"exit code {0 if ends_with == 'success' else 1}") == 2, done.stderr


JOINT_RUNS = {
    "cns": ("--recipe", "cns"),
    "cns with several caches": ("--recipe", "cns", "--share", "2", "--share", "1"),
    "cns with confidence": ("--recipe", "cns", "--set", "terms.semantic.confidence=true"),
    "cns with a moving average": (
        "--recipe",
        "cns",
        "--set",
        "schedule.ema_decay=0.9",
        "--set",
        "schedule.stage2_epoch=0",
    ),
    "openscene": ("--recipe", "openscene"),
    "clip2scene": ("--recipe", "clip2scene"),
    "clip2scene-rooms": ("--recipe", "clip2scene-rooms"),
    "cns-instances": ("--recipe", "cns-instances"),
    "affinity3d": ("--recipe", "affinity3d", "--set", "networks.cloud=small"),
}
"""Trainings with two ranks, by name, and the options of each."""


@pytest.mark.slow
def test_two_ranks_have_the_losses_of_one_rank_with_the_joint_batch(
    rich_toy: str, make_cache: MakeCache, tmp_path: Path
) -> None:
    """Both ranks start once for all trainings, since a start costs more than a training."""
    settings = ("optimiser.epochs=2", "schedule.stage2_epoch=1", "augment.images=false", "optimiser.lr=0.01")
    other = make_cache(tmp_path / "other", scenes=3, seed=7)

    def command(name: str, batch_samples: int) -> list[str]:
        caches = [rich_toy, other] if "caches" in name else [rich_toy]
        common = overrides(*settings, f"stream.batch_samples={batch_samples}")
        return ["fit", *caches, "--out", str(tmp_path / str(batch_samples) / name), *common, *JOINT_RUNS[name]]

    script = tmp_path / "script.py"
    script.write_text(  # each training leaves its group at the end, and one store starts one group
        "import json, os, sys; from torch import distributed; from torch.distributed.nn import functional\n"
        "from trainer.cli import main\n"
        "rank, world = int(os.environ['RANK']), int(os.environ['WORLD_SIZE'])\n"
        "for number, words in enumerate(json.loads(sys.argv[1])):\n"
        "    store = distributed.FileStore(f'{__file__}.{number}', world)\n"
        "    distributed.init_process_group('gloo', store=store, rank=rank, world_size=world)\n"
        "    main(words, standalone_mode=False)\n"
    )
    run(trainer(json.dumps([command(name, 1) for name in JOINT_RUNS]), launcher=(*TORCHRUN, str(script))))
    for name in JOINT_RUNS:
        run_cli(*command(name, 2))
        alone, joint = (history(tmp_path / batch_samples / name) for batch_samples in ("2", "1"))
        assert len(alone) == len(joint) > 5, name
        assert joint[0]["loss"] == pytest.approx(alone[0]["loss"], rel=1e-5), name
        for one, two in zip(alone, joint, strict=True):
            assert two["loss"] == pytest.approx(one["loss"], rel=2e-3), name
            assert two["image_source"] == one["image_source"], name


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_ranks_only_at_the_same_steps(toy: str, tmp_path: Path) -> None:
    """The second rank has an empty folder of its own, as on nodes that share no disk."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys; from trainer.cli import main\n"
        "main([word.replace('RANK', os.environ['RANK']) for word in sys.argv[1:]])\n"
    )
    settings = (*SMALL, "optimiser.epochs=3", "augment.images=false", "checkpoint_minutes=10")
    batch_of_two = load_settings("demo", overrides=[*settings, "stream.batch_samples=2"])

    def fail_after_two_epochs(line: str) -> None:
        if line.startswith("epoch 2 finished"):
            raise InterruptedError

    fit(FitRequest(batch_of_two, toy, tmp_path / "whole"), lambda line: None)
    with pytest.raises(InterruptedError):
        fit(FitRequest(batch_of_two, toy, tmp_path / "0"), fail_after_two_epochs)
    steps = len(history(tmp_path / "whole"))

    def resume(batch_samples: int) -> subprocess.CompletedProcess[str]:
        words = overrides(*settings[len(SMALL) :], f"stream.batch_samples={batch_samples}")
        command = trainer("fit", toy, "--out", tmp_path / "RANK", "--resume", *words, launcher=(*TORCHRUN, str(script)))
        return subprocess.run(command, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=240)

    refused = resume(2)
    assert refused.returncode == 1
    assert "takes 2 samples on all ranks together" in refused.stderr
    assert "resume on 1 ranks or with --set stream.batch_samples=1" in refused.stderr
    done = resume(1)
    assert done.returncode == 0, done.stderr
    assert len(history(tmp_path / "0")) == steps and not (tmp_path / "1").exists()
    for alone, joint in zip(history(tmp_path / "whole"), history(tmp_path / "0"), strict=True):
        assert joint["loss"] == pytest.approx(alone["loss"], rel=2e-3)


@pytest.mark.slow
def test_too_little_shared_memory_is_one_error_before_any_worker_hangs(toy: str, tmp_path: Path) -> None:
    small = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=256k tmpfs /dev/shm && exec "$@"', "sh")
    if subprocess.run([*small, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to mount a small /dev/shm")
    command = trainer("fit", toy, "--out", tmp_path / "run", *overrides("stream.workers=4"))
    done = subprocess.run(
        [*small, *command], cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "/dev/shm has 0.3 MB free" in line and "`--shm-size`" in line
    number = line.rpartition("stream.workers=")[2]
    fitting = trainer("fit", toy, "--out", tmp_path / "other", *overrides(f"stream.workers={number}"))
    subprocess.run([*small, *fitting], cwd=REPOSITORY, env=ENVIRONMENT, check=True, capture_output=True, timeout=60)


@pytest.mark.slow
@pytest.mark.parametrize("largest_file", [1000, 4000, 20_000, 1_000_000])
def test_a_disk_that_takes_no_more_ends_a_training_with_one_error(toy: str, tmp_path: Path, largest_file: int) -> None:
    """A limit on the size of files stands for a full disk, met by run.json, TensorBoard, the curve or a checkpoint."""
    done = subprocess.run(
        trainer("fit", toy, "--out", tmp_path / "run", *overrides("stream.hold_out=0", "checkpoint_minutes=10")),
        cwd=REPOSITORY,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file)),
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "cannot be written" in line and str(tmp_path / "run") in line


@pytest.mark.slow
def test_training_needs_neither_labelgen_nor_ray(toy: str, tmp_path: Path) -> None:
    code = (
        "import sys; from trainer.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "bad = {name.split('.')[0] for name in sys.modules} & {'labelgen', 'ray', 'nuscenes', 'pipelines'}\n"
        "assert not bad, bad"
    )
    command = trainer("fit", toy, "--out", tmp_path / "run", *overrides("optimiser.epochs=1"), launcher=("-c", code))
    run(command)
