"""Several runs of one model that go in step, so that what is on the disk is read once for all.

What is generated passes a whole model for each new token. A run is any function that calls the
model, such as transformers' own `generate`. Each goes in a thread of its own, and only one of them
at a time: until it enters a module that would have to be read. There it waits for the others. Then
the module is read, and all of them pass it, one after the other. A run computes what it would
compute alone, by the same calls. Where nothing is on the disk, runs just follow each other.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from typing import Any, Protocol, TypeVar

import torch

Result = TypeVar("Result")


class Readable(Protocol):
    """A module on the disk, which can be kept in memory while others use it."""

    def held(self) -> AbstractContextManager[None]:
        """Keep it while the context lasts."""


class _Stopped(BaseException):
    """Another run has failed, or the program is to end."""


_running: ContextVar[_Run | None] = ContextVar("_running", default=None)


def own_hook(see: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that acts in the run that has put it on the model, and in no other.

    One that no run has put there acts in all of them.
    """
    run = _running.get()
    if run is None:
        return see
    return lambda *args: see(*args) if _running.get() is run else None


def wait_for(module: Readable) -> None:
    """Let the other runs come as far, before a module is read from the disk."""
    run = _running.get()
    if run is not None:
        run.wait(module)


def in_turns(runs: Sequence[Callable[[], Result]], *, together: bool = True) -> list[Result]:
    """The results of some runs.

    Args:
        runs: use one model; they share nothing else that one of them changes. Each has random
            numbers of its own, which begin where the caller's are.
        together: whether they go in step; one after the other, otherwise.

    Raises:
        BaseException: the first that a run raises. The others are given up, or, if this is called
            within such a run, come to their end before.
    """
    if not together or len(runs) < 2:
        return [run() for run in runs]
    outer = _running.get()
    if outer is not None:
        return outer.wait_for_all(runs)
    turns = _Turns()
    started = [turns.start(run, None) for run in runs]
    random = _random_state()
    try:
        turns.go_on()
    finally:
        turns.stop()
        _set_random_state(random)
    return [run.result for run in started]


class _Turns:
    """Says whose turn it is."""

    def __init__(self) -> None:
        self._runs: list[_Run] = []

    def start(self, function: Callable[[], Any], within: _Run | None) -> _Run:
        run = _Run(self, function, within)
        self._runs.append(run)
        return run

    def go_on(self) -> None:
        """Let all runs come to their end."""
        while waiting := [run for run in self._runs if run.can_go]:
            # What waits for no module comes as far as the others first.
            module = min((run.module for run in waiting), key=lambda m: m is not None)
            with nullcontext() if module is None else module.held():
                for run in waiting:
                    if run.module is module:
                        run.go()

    def stop(self) -> None:
        """Give up what has not ended."""
        for run in self._runs:
            run.give_up()


class _Run:
    """A function in a thread of its own."""

    def __init__(self, turns: _Turns, function: Callable[[], Any], within: _Run | None) -> None:
        self.module: Readable | None = None
        self.result: Any = None
        self.error: BaseException | None = None
        self._turns, self._function, self._within = turns, function, within
        self._others: list[_Run] = []
        self._random = _random_state()
        self._go, self._waits = threading.Semaphore(0), threading.Semaphore(0)
        self._is_stopped = self._has_ended = False
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def can_go(self) -> bool:
        """Whether it waits for nothing but its turn."""
        return not self._has_ended and all(run._has_ended for run in self._others)

    def go(self) -> None:
        """Let it go on until it waits again or ends; called by whoever says whose turn it is."""
        _set_random_state(self._random)
        self._go.release()
        self._waits.acquire()
        self._random = _random_state()
        if self.error is not None and self._within is None:
            raise self.error

    def give_up(self) -> None:
        """Let it end, wherever it is."""
        self._is_stopped = True
        self._go.release()
        self._thread.join()

    def wait(self, module: Readable | None) -> None:
        """Wait for the next turn; called by the run itself."""
        self.module = module
        self._waits.release()
        self._go.acquire()
        if self._is_stopped:
            raise _Stopped
        self.module = None

    def wait_for_all(self, runs: Sequence[Callable[[], Any]]) -> list[Any]:
        """Have other runs go in step with those that do already; called by the run itself."""
        self._others = [self._turns.start(run, self) for run in runs]
        self.wait(None)
        for run in self._others:
            if run.error is not None:
                raise run.error
        return [run.result for run in self._others]

    def _run(self) -> None:
        _running.set(self)
        self._go.acquire()
        try:
            if not self._is_stopped:
                self.result = self._function()
        except _Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            self.error = error
        self._has_ended = True
        self._waits.release()


def _random_state() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None
    return torch.get_rng_state(), cuda


def _set_random_state(state: tuple[Any, ...]) -> None:
    numbers, cuda = state
    torch.set_rng_state(numbers)
    if cuda is not None:
        torch.cuda.set_rng_state_all(cuda)
