"""A call that every process of a run makes, and its outcome, which is the same in all of them.

The processes talk through the coordinator of `jax.distributed`, not by collectives, which would
get between those of the training steps when they run in a thread.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeAlias

import jax

from oryxstate import _jax

PATIENCE = 600.0  # seconds to wait for a process that has not made the call
ASKING = 60.0  # seconds after which the log says which process is waited for
Json: TypeAlias = Any  # what goes through `json.dumps`

_log = logging.getLogger("oryxstate.checkpoint")
_counting = threading.Lock()
_calls = itertools.count()


class Call:
    """One call of a method by all processes; of the only one where there is no other.

    As a context, it tells the other processes of an exception that keeps this one from the first
    stage.

    Args:
        what: the call, such as "save(3)", which is compared.

    Attributes:
        number: the number of this process.
        count: how many processes there are.
    """

    def __init__(self, what: str):
        self.what = what
        client, self.number, self.count = _jax.processes()
        self._client: Any = client if self.count > 1 else None
        with _counting:  # equal in all processes, if all make the same calls in the same order
            self._key = f"oryxstate/checkpoint/{next(_calls)}"

    def agree(
        self,
        stage: str,
        mine: Callable[[], Json],
        conclude: Callable[[Sequence[Json]], Json] = lambda said: None,
    ) -> Json:
        """Do something in every process, conclude from what all say, and tell all.

        Args:
            stage: a name; the first is "begin".
            mine: what this process does and says.
            conclude: what process 0 makes of what all have said, in the order of their numbers.

        Raises:
            Exception: what fails in this process, as it is.
            OtherProcess: if either fails in another.
        """
        if self._client is None:
            return conclude([mine()])
        said, error = self._attempt(mine)
        if self.number == 0:
            answer, failed = self._attempt(lambda: conclude(self._gather(stage, said)))
            error = error or failed
            self._set(f"{stage}/all", answer)
        else:
            self._set(f"{stage}/{self.number}", said)
            answer = self._get(stage, "all", 0, time.monotonic())
        if "error" in answer:
            raise OtherProcess(answer["error"]) if error is None else error
        return answer["value"]

    def _attempt(
        self, function: Callable[[], Json]
    ) -> tuple[dict[str, Json], BaseException | None]:
        try:
            return {"what": self.what, "value": function()}, None
        except OtherProcess as error:
            return {"error": str(error)}, error
        except Exception as error:
            return self._told(error), error

    def _told(self, error: BaseException) -> dict[str, Json]:
        return {"error": f"process {self.number}: {type(error).__name__}: {error}"}

    def _gather(self, stage: str, own: Json) -> list[Json]:
        """Return what all processes say, also if some fail: then none is still at work."""
        began = time.monotonic()
        others = [self._get(stage, str(i), i, began) for i in range(1, self.count)]
        self._client.key_value_delete(f"{self._key}/{stage}/")
        errors = [said["error"] for said in (own, *others) if "error" in said]
        if errors:
            more = f" (and {len(errors) - 2} more)" if len(errors) > 2 else ""
            raise OtherProcess("; ".join(errors[:2]) + more)
        for i, said in enumerate(others, 1):
            if said["what"] != self.what:
                raise OtherProcess(
                    f"process 0 called {self.what}, but process {i} called {said['what']}; every "
                    "process makes the same calls in the same order"
                )
        return [said["value"] for said in (own, *others)]

    def _set(self, name: str, said: Json) -> None:
        text = zlib.compress(json.dumps(said).encode())
        self._client.key_value_set_bytes(f"{self._key}/{name}", text)

    def _get(self, stage: str, name: str, process: int, began: float) -> Json:
        """Wait for what a process says; after the first stage as long as it lives."""
        # Process 0 may have come as late as it waits for others itself.
        patience = PATIENCE if self.number == 0 else 2 * PATIENCE
        while True:
            try:
                key, wait = f"{self._key}/{stage}/{name}", min(ASKING, patience)
                text = self._client.blocking_key_value_get_bytes(key, int(1000 * wait))
                return json.loads(zlib.decompress(text))
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise OtherProcess(f"the coordinator of JAX is lost: {error}") from error
            waited = time.monotonic() - began
            late = f"process {process} has not come to {self.what} for {waited:.0f} s"
            if stage == "begin" and waited >= patience:
                raise OtherProcess(f"{late}; every process makes the same calls in the same order")
            _log.warning("%s, stage '%s'; process %d waits for it", late, stage, self.number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, Exception) and self._client is not None:
            with contextlib.suppress(jax.errors.JaxRuntimeError):  # of no use to the others then
                self._set(f"begin/{self.number or 'all'}", self._told(error))


class OtherProcess(Exception):
    """What failed in one or several processes, with their numbers."""
