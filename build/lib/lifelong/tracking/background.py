"""Calls made one after the other on a thread of their own, so that who asks for them never waits."""

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread


class Background:
    """Calls in order; what one raises is handed to `on_error`, and the next follows."""

    def __init__(self, on_error: Callable[[Exception], None]) -> None:
        self._on_error = on_error
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, daemon=True)  # a hung call does not keep the process
        self._thread.start()

    def do(self, call: Callable[[], None]) -> None:
        self._calls.put(call)

    def finish(self, seconds: float) -> bool:
        """Wait for the calls so far, `seconds` at most; whether all were made. Nothing can be asked for after this."""
        self._calls.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception as error:  # noqa: PERF203 - the next call must follow
                self._on_error(error)
