"""The checkpoints of one training run: saved in the background, the oldest removed."""

from __future__ import annotations

import concurrent.futures
import math
import operator
import os
import re
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

from oryxstate._errors import CheckpointError
from oryxstate.checkpoint import _at_exit, _disk, _folder
from oryxstate.checkpoint._call import Call, OtherProcess
from oryxstate.checkpoint._one import failing, numbers, restore
from oryxstate.checkpoint._snapshot import Taken, snapshot
from oryxstate.mapping._match import Report
from oryxstate.mapping._rule import Rule

T = TypeVar("T")
_STEP = re.compile(r"step-(\d+)")


class Checkpoints:
    """The checkpoints of a run in one folder, each under the number of its step.

    `save` returns as soon as it has taken the values; a thread writes them. When `wait`, or any
    other method, returns, what was saved before is on the disk and survives the death of the
    process and of the machine. If a save fails, the next call of any method raises
    `CheckpointError`, once, and the end of the program prints it.

    One run at a time writes into a folder, from its first `save` to `close`; any number read.

    In a run of several processes (`jax.distributed`), every process makes the same calls in the
    same order, with the same trees, and the folder is on a file system that all share. Each process
    writes and reads what is on its own devices, process 0 the rest and the metrics. What fails in
    one process is raised in all.

    Args:
        folder: where the checkpoints are; it is made when the first is saved.
        keep_last: how many of the last to keep; all if None, unless `keep_best` is given.
        keep_best: how many of the best by `metric` to keep besides. The last, and the one that was
            just saved, are always kept.
        metric: the name of the metric that says which is best.
        mode: "min" if less is better, "max" if more is. NaN is worst.

    Examples:
        >>> import tempfile, jax, jax.numpy as jnp
        >>> import oryxstate as ox
        >>> folder = tempfile.mkdtemp()
        >>> with ox.checkpoint.Checkpoints(folder, keep_last=1, keep_best=1, metric="loss") as run:
        ...     for step, loss in enumerate([3.0, 1.0, 2.0, 4.0]):
        ...         run.save(step, {"weight": jnp.full(2, step)}, metrics={"loss": loss})
        >>> run.steps(), run.latest(), run.best()
        ([1, 3], 3, 1)
        >>> like = jax.eval_shape(lambda: {"weight": jnp.zeros(2, int)})
        >>> run.restore(like, step=run.best())
        {'weight': Array([1, 1], dtype=int32)}
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        keep_last: int | None = None,
        keep_best: int = 0,
        metric: str | None = None,
        mode: Literal["min", "max"] = "min",
    ):
        if keep_last is not None and keep_last < 1:
            raise ValueError(f"`keep_last` is at least 1, or None to keep all; got {keep_last}.")
        if keep_best < 0 or (keep_best and metric is None):
            raise ValueError(
                f"`keep_best` is a number of checkpoints, and needs the name of a `metric`; got "
                f"{keep_best}, and metric={metric!r}."
            )
        if mode not in ("min", "max"):
            raise ValueError(f"`mode` is 'min' or 'max', got {mode!r}.")
        self.folder: Path = Path(folder).absolute()
        self._keep = keep_last, keep_best
        self._metric, self._mode = metric, mode
        self._pending: concurrent.futures.Future | None = None
        self._release: Callable[[], Any] | None = None

    # Writing ----------------------------------------------------------------------------------

    def save(self, step: int, tree: Any, *, metrics: Mapping[str, Any] | None = None) -> None:
        """Save a pytree under a step, in the background.

        The values are those that the leaves have now: arrays may be donated and NumPy arrays
        changed afterwards. It first waits for the save before.

        Args:
            step: the number of the step, of which there is no checkpoint yet.
            tree: a pytree of modules, optimizer states, arrays, random keys, and Python numbers,
                booleans, str and bytes.
            metrics: numbers to keep with it, that of `best` among them.

        Raises:
            CheckpointError: if the save before failed, another process writes into the folder, or
                there is a checkpoint of this step.
            TypeError: for a leaf that a checkpoint cannot hold, naming its path.
            ValueError: if the metric of `best` is not given.
        """
        self._settle()
        given = numbers(metrics)
        if self._metric is not None and self._metric not in given:
            raise ValueError(
                f"the best checkpoint is that of the best '{self._metric}', but `metrics` has "
                f"{sorted(given)}. Give it, `metrics={{{self._metric!r}: ...}}`."
            )
        path, step = self._path(step), operator.index(step)  # of a NumPy or JAX integer too
        with Call(f"save({step})") as call:
            if call.number == 0:
                self._open()
                self._check_new(step, path)
            taken = snapshot(tree)
        pool = concurrent.futures.ThreadPoolExecutor(1, "oryxstate-checkpoint")
        self._pending = pool.submit(self._write, step, path, taken, given, call)
        pool.shutdown(wait=False)
        _at_exit.await_save_of(self)

    def _check_new(self, step: int, path: Path) -> None:
        if path.exists() and _is_whole(path):
            raise CheckpointError(
                f"there is a checkpoint of step {step} in '{self.folder}'. Go on from the last, "
                f"`restore(...)`, or remove it, `delete({step})`."
            )

    def _write(
        self,
        step: int,
        path: Path,
        taken: Mapping[str, Taken],
        metrics: Mapping[str, float],
        call: Call,
    ) -> None:
        with failing(f"step {step} was not saved in '{self.folder}'"):
            if call.number == 0 and path.exists():  # damaged
                _disk.remove(path)
            _folder.write(path, taken, metrics, call)
        with failing(f"step {step} was saved in '{self.folder}', but older ones were not removed"):
            call.agree("retire", lambda: self._retire(step) if call.number == 0 else None)

    def _retire(self, saved: int) -> None:
        """Remove what is not to be kept; the last whole checkpoint always is.

        So is the one just saved, also where a run that went back has later ones before it.
        """
        last, best = self._keep
        if last is None and not best:
            return
        steps = self._whole()
        kept = {saved, *steps[-(last or 1) :], *self._ranked(steps)[:best]}
        for step in steps:
            if step not in kept:
                _disk.remove(self._path(step))

    def _open(self) -> None:
        """Take the right to write into the folder, and clean up after killed writers."""
        if self._release is not None:
            return
        try:
            _disk.make_folder(self.folder)
            lock = _disk.Lock(self.folder)
        except BlockingIOError as error:
            raise CheckpointError(
                f"process {error.args[1]} writes into '{self.folder}'. Give each run a folder of "
                "its own; in one process, `close()` the other `Checkpoints` first."
            ) from None
        except OSError as error:
            raise CheckpointError(f"'{self.folder}' cannot be written: {error}.") from error
        self._release = weakref.finalize(self, lock.release)
        with failing(f"'{self.folder}' could not be cleaned up"):
            _disk.sweep(self.folder)

    def delete(self, step: int) -> None:
        """Remove the checkpoint of a step.

        Raises:
            CheckpointError: if there is none, or it cannot be removed.
        """
        self._settle()
        path = self._path(step)

        def remove() -> None:
            self._open()
            _disk.remove(path)

        call = Call(f"delete({step})")
        with failing(f"step {step} in '{self.folder}' was not removed"):
            call.agree("begin", lambda: remove() if call.number == 0 else None)

    def wait(self) -> None:
        """Wait until what was saved is on the disk.

        Raises:
            CheckpointError: if a save failed.
        """
        self._settle()

    def close(self) -> None:
        """Wait like `wait`, and let others write into the folder."""
        try:
            self._settle()
        finally:
            if self._release is not None:
                self._release()
                self._release = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _settle(self) -> None:
        if self._pending is not None:
            concurrent.futures.wait([self._pending])
            future, self._pending = self._pending, None
            _at_exit.UNSETTLED.discard(self)
            future.result()

    # Reading ----------------------------------------------------------------------------------

    def steps(self) -> list[int]:
        """Return the steps of which there is a whole checkpoint, in order.

        A damaged one is left out, with a warning.

        Raises:
            CheckpointError: if a save failed, or a later release wrote here.
        """
        self._settle()
        call = Call("steps()")
        with failing(f"the steps in '{self.folder}' could not be listed"):
            steps = call.agree(
                "begin", lambda: self._whole() if call.number == 0 else None, lambda said: said[0]
            )
            if call.count > 1:
                call.agree("seen", lambda: self._await_visible(steps))
        return steps

    def _await_visible(self, steps: list[int]) -> None:
        for step in steps:
            _disk.await_visible(self._path(step))

    def latest(self) -> int | None:
        """Return the last step of which there is a whole checkpoint, None if there is none."""
        return max(self.steps(), default=None)

    def best(self) -> int | None:
        """Return the step with the best metric, None if there is none.

        Raises:
            ValueError: if these `Checkpoints` were given no `metric`.
        """
        if self._metric is None:
            raise ValueError(
                "no metric says which checkpoint is best: `Checkpoints(folder, metric='loss')`."
            )
        return next(iter(self._ranked(self.steps())), None)

    def metrics(self, step: int) -> dict[str, float]:
        """Return the metrics that were saved with a step."""
        self._settle()
        return dict(_folder.manifest(self._path(step)).metrics)

    def restore(
        self,
        into: T,
        *,
        step: int | None = None,
        select: Any = None,
        mapping: Sequence[Rule] = (),
        report: Callable[[Report], Any] | None = None,
    ) -> T:
        """Read the checkpoint of a step into a pytree like another, as `restore` does.

        Args:
            into: the pytree, best an abstract one, from `jax.eval_shape`.
            step: the step; the last if None.
            select: which leaves to restore.
            mapping: rules that lead from the saved paths to those of `into`.
            report: called with a `mapping.Report` of what was restored, such as `print`.

        Raises:
            MismatchError: listing every path that is missing, left over, or does not fit.
            CheckpointError: if there is no whole checkpoint, or a save failed.
        """
        self._settle()
        chosen = self.latest() if step is None else step
        if chosen is None:
            raise CheckpointError(
                f"there is no checkpoint in '{self.folder}'. Check `latest()` first, which is None "
                "then, and start from new values; or `save` one."
            )
        path, call = self._path(chosen), Call(f"restore(step={chosen})")
        restored: list[T] = []

        def read() -> None:
            restored.append(restore(path, into, select=select, mapping=mapping, report=report))

        try:
            call.agree("begin", lambda: None)
            call.agree("read", read)  # which may take one process longer than another
        except OtherProcess as error:
            raise CheckpointError(
                f"step {chosen} in '{self.folder}' was not restored: {error}."
            ) from error
        return restored[0]

    def _path(self, step: int) -> Path:
        if isinstance(step, bool) or not hasattr(step, "__index__") or step < 0:
            raise ValueError(f"a step is an integer that is not negative, got {step!r}.")
        return self.folder / f"step-{operator.index(step)}"

    def _whole(self) -> list[int]:
        names = os.listdir(self.folder) if self.folder.is_dir() else []
        found = [int(match[1]) for name in names if (match := _STEP.fullmatch(name))]
        return [step for step in sorted(found) if _is_whole(self._path(step))]

    def _ranked(self, steps: list[int]) -> list[int]:
        """Return the steps that have the metric, the best first, of equals the last."""
        if self._metric is None:
            return []
        sign = 1 if self._mode == "min" else -1
        values = {s: _folder.manifest(self._path(s)).metrics.get(self._metric) for s in steps}
        known = {step: sign * value for step, value in values.items() if value is not None}
        return sorted(known, key=lambda s: (math.isnan(known[s]), known[s], -s))


def _is_whole(path: Path) -> bool:
    try:
        _folder.manifest(path)
    except _folder.Damaged as error:
        warnings.warn(f"{error} It is left out.", stacklevel=6)
        return False
    return True
