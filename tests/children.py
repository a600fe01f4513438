"""Programs that tests start as processes of their own: to be killed, stopped, or to train together.

``start`` forks them from a server that has imported everything once, because importing takes longer
than training a tiny network does.
"""

import multiprocessing
import os
import signal
import sys
from pathlib import Path

import torch

import tiny
from fieldmark import runtime
from fieldmark.errors import FieldmarkError
from fieldmark.methods import METHODS
from fieldmark.training import checkpoint, loop
from fieldmark.training.loop import fit

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["children"])


def start(function, out, *arguments):
    """Begin a process; what it says goes to the file ``out``."""
    process = _context.Process(target=_call, args=(function, str(out), arguments), daemon=True)
    process.start()
    return process


def finish(process, seconds=240):
    """Wait for its end; returns the exit code, negative for a signal."""
    process.join(seconds)
    if process.is_alive():
        process.kill()
        raise AssertionError("the process hung")
    return process.exitcode


def _call(function, out, arguments):
    with Path(out).open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    try:
        function(*arguments)
    except FieldmarkError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        sys.exit(error.exit_code)


def kill_in_save(countdown):
    """SIGKILL this process at the n-th place inside a save: between any two durable steps."""
    places = 0

    def counted(real):
        def call(*arguments, **settings):
            nonlocal places
            places += 1
            if places == countdown:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **settings)

        return call

    checkpoint.save_file = counted(checkpoint.save_file)
    for name in ("sync_file", "sync_folder", "sha256_of", "write_json"):
        setattr(checkpoint.storage, name, counted(getattr(checkpoint.storage, name)))
    Path.rename = counted(Path.rename)
    Path.replace = counted(Path.replace)


def train(run, name, settings):
    """Train; ``kill_at``, ``kill_in``, ``signal_at`` and ``signal`` say what befalls it."""
    settings = dict(settings)
    kill_at, kill_in = settings.pop("kill_at", None), settings.pop("kill_in", None)
    signal_at, number = settings.pop("signal_at", None), settings.pop("signal", None)
    method = tiny.method(name)
    if kill_in:
        kill_in_save(kill_in)
    real = method.after_step

    def after_step(progress, carry):
        real(progress, carry)
        if progress.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if progress.step == signal_at:
            os.kill(os.getpid(), number)

    method.after_step = after_step
    fit(method, tiny.source(name), tiny.train_config(**settings), Path(run))


def inject(fault):
    if fault == "queue not gathered":
        loop._join = lambda carries: {k: torch.cat([c[k] for c in carries]) for k in carries[0]}
    elif fault == "gradients not averaged":
        runtime.data_parallel = lambda module: module
    elif fault == "keys not gathered":
        runtime.gather_with_gradient = lambda x: x
    elif fault == "statistics not synchronised":
        loop.synchronize_statistics = lambda module: None
    elif fault != "none":
        raise ValueError(fault)


def train_together(out, rendezvous, rank, world, epochs, fault, lr=0.02):
    """One of several processes that train every method in turn."""
    inject(fault)
    settings = {}
    if rendezvous != "environment":
        settings = {"rendezvous": rendezvous, "rank": rank, "world": world}
    with runtime.processes(timeout_seconds=120, **settings):
        for name in METHODS:
            config = tiny.train_config(epochs=epochs, lr=lr)
            fit(tiny.exact_method(name), tiny.source(name), config, Path(out) / name)
        if fault == "none":
            config = tiny.train_config(epochs=epochs, lr=lr, accumulate=2)
            fit(tiny.exact_method("mocov2"), tiny.source(), config, Path(out) / "accumulated")


if __name__ == "__main__":  # as torchrun starts it
    train_together(sys.argv[1], "environment", 0, 0, 3, "none")
