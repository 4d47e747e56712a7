"""Main loop of the supervisor: hello, run the child, deliver until the last acknowledgement.

Two threads share one `Spool`. The reader (main) waits for the child's pipes, the child's exit and signals, never for
the network while the child runs. The reporter waits for the network only; it begins 50 ms after the child, so that a
child that ends at once costs no thread.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import selectors
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from runner import processes
from runner.supervisor.assignment import REPORT_SPACING_SECONDS, Assignment, Order, append
from runner.supervisor.checkpoints import Checkpoints
from runner.supervisor.child import (
    Refused,
    become_subreaper,
    command,
    kill_descendants,
    lower_session,
    prepare,
    reap,
    start,
)
from runner.supervisor.complaints import complain
from runner.supervisor.curve import Curve
from runner.supervisor.files.attached import Abandoned, Files, bring, unpack
from runner.supervisor.lines import Log, Output
from runner.supervisor.meeting import HeldPort
from runner.supervisor.notices import Notices, clean, shorten
from runner.supervisor.provenance import Provenance
from runner.supervisor.readers.patterns import Patterns
from runner.supervisor.readers.stream import Stream
from runner.supervisor.reporter import Reporter
from runner.supervisor.service import Backoff, Service, Unreachable
from runner.supervisor.sources.attached import Sources
from runner.supervisor.sources.intake import Intake
from runner.supervisor.sources.reports import Reports
from runner.supervisor.spool import Exit, Spool
from runner.supervisor.system.sampler import Sampler

if TYPE_CHECKING:
    from runner.supervisor.files.package import Unpacked

WAIT_SECONDS = 0.5  # between two hellos while other members are missing
LAST_HELLO_RETRY_SECONDS = 1.0  # short: the machine is reserved and idle
DEFAULT_HEARTBEAT_SECONDS = 2.0  # without an order
TICK_SECONDS = 0.5
REPORTED = 0  # exit status: the service has acknowledged the exit, and no process is left
NOT_REPORTED = 1  # no process is left
LEFTOVERS = 3  # some process would not die
UNPAID = ("MAX_COST", "BUDGET_EXHAUSTED")  # reasons of an end after which nothing may cost more than a stop does
LEAVING_SECONDS = 30.0  # for uploads while the machine goes down; it may be killed meanwhile, which does no harm
LEAST_SECONDS = 1.0
MAX_CAUSE = 150  # characters of a failure's last line, as lists show it
SHUTDOWN_SECONDS = 5.0  # to get the last report out while the machine goes down


def supervise(directory: Path) -> int:
    """Run one attempt from hello to delivery. Returns the exit status of this process.

    The caller has recorded this process in `supervisor.json`.
    """
    assignment = Assignment.read(directory)
    become_subreaper()
    signals = Signals()
    service = Service(assignment)
    note_nonce(directory, service.nonce)
    port = HeldPort() if assignment.world_size > 1 and assignment.rank == 0 else None
    greeting = greet(service, signals, time.monotonic() + assignment.give_up_seconds, port)
    if port is not None:
        port.release()
    if greeting is None:
        complain("gave up before the service answered")
        return NOT_REPORTED
    verdict, order = greeting
    if verdict == "OVER":
        complain("this attempt is over already")
        return REPORTED
    order = assignment.assign_devices(order) if order is not None else None

    spool = Spool(directory, assignment.spool_memory_bytes, assignment.spool_limit_bytes)
    heartbeat_seconds = order.heartbeat_seconds if order is not None else DEFAULT_HEARTBEAT_SECONDS
    is_stopped = order is None or verdict == "STOP"
    reporter = Reporter(service, spool, signals.wake, heartbeat_seconds, 0.0 if is_stopped else heartbeat_seconds)
    try:
        if order is None or is_stopped:
            reporter.begin()
            end: Exit | None = refuse_to_start(reporter, signals, assignment.give_up_seconds)
        else:
            try:
                order, package = _bring(assignment, order, service.nonce, spool, reporter, signals)
                end = Run(assignment, order, spool, reporter, signals, service.nonce).to_the_end()
                if package is not None:
                    package.remove_unchanged()
            except Abandoned:
                end = refuse_to_start(reporter, signals, assignment.give_up_seconds)
            except Refused as refusal:
                end = Exit(reason="LAUNCH_ERROR", message=str(refusal))
        spool.close(end)
        deliver(reporter, signals, assignment.give_up_seconds)
        if reporter.is_finished:  # else its thread may be using the connection
            service.close()
    finally:  # also after a defect of this program: no process stays behind
        is_clear = kill_descendants()
    if not is_clear:
        return LEFTOVERS
    if reporter.is_over or (reporter.is_done and end is not None):
        spool.clear()
        return REPORTED
    complain("gave up: the end was not reported")
    return NOT_REPORTED


def note_nonce(directory: Path, nonce: str) -> None:
    """Note the nonce, with which the host's loop delivers the spool of a killed supervisor."""
    try:
        append(directory, {"nonce": nonce})
    except OSError as error:
        complain(f"the nonce could not be written: {error}")


def note_child(directory: Path, pid: int) -> None:
    """Note the child's identity, for the engine of a killed supervisor."""
    try:
        identity = processes.identify(pid)
        if identity is not None:
            append(directory, {"child": vars(identity)})
    except OSError as error:  # a full disk; the mark in the environment is still there
        complain(f"the child's identity could not be written: {error}")


def greet(
    service: Service, signals: Signals, give_up_at: float, port: HeldPort | None = None
) -> tuple[str, Order | None] | None:
    """Repeat hello until the reply has a verdict and, unless the verdict is OVER, an order.

    WAIT: other members have not said hello yet. Returns None if this process has to end first.
    """
    backoff = Backoff(LAST_HELLO_RETRY_SECONDS)
    while not signals.is_terminated and time.monotonic() < give_up_at:
        try:
            answer = service.hello(port.number if port is not None else None)
            verdict, order = str(answer["verdict"]), answer["order"]
            if verdict == "WAIT":
                backoff.succeeded()
                signals.wait(WAIT_SECONDS)
                continue
            if verdict == "CONTINUE" and not isinstance(order, dict):
                raise Unreachable("an answer without an order")
            return verdict, Order.parse(order) if isinstance(order, dict) else None
        except (Unreachable, KeyError, ValueError, TypeError) as error:
            signals.wait(backoff.failed(f"{type(error).__name__}: {error}"))
    return None


def _bring(
    assignment: Assignment, order: Order, nonce: str, spool: Spool, reporter: Reporter, signals: Signals
) -> tuple[Order, Unpacked | None]:
    """Bring stored files and the package here; return the order without the time that this took, for it is paid for.

    Raises Refused, and Abandoned if the attempt is to end meanwhile.
    """
    began = time.monotonic()

    def is_abandoned() -> bool:
        return signals.is_terminated or reporter.is_over or reporter.is_finished or reporter.is_stop_wanted

    def say(sentence: str) -> None:
        spool.add_log("SUPERVISOR", sentence)

    has_asked = bring(assignment, order, nonce, begin=reporter.begin, is_abandoned=is_abandoned, say=say)
    package = unpack(assignment, nonce, begin=reporter.begin, is_abandoned=is_abandoned, say=say)
    if order.max_cost_seconds is None or not (has_asked or package is not None):
        return order, package
    left = order.max_cost_seconds - (time.monotonic() - began)
    return replace(order, max_cost_seconds=max(left, LEAST_SECONDS)), package


def _seconds(number: float) -> str:
    return f"{number:g} {'second' if number == 1 else 'seconds'}"


def refuse_to_start(reporter: Reporter, signals: Signals, give_up_seconds: float) -> Exit | None:
    """Return the exit of a simulation stopped before it began; the first heartbeat's answer holds the reason."""
    deadline = time.monotonic() + give_up_seconds
    while not reporter.is_answered and not reporter.is_finished and time.monotonic() < deadline:
        if signals.is_terminated:
            return None
        signals.wait(deadline - time.monotonic())
    return Exit(reason=reporter.stop_reason, message="It was stopped before it began.")


def deliver(reporter: Reporter, signals: Signals, give_up_seconds: float) -> None:
    """Wait until everything is acknowledged, for a limited time, and only 5 seconds while the machine goes down."""
    deadline = time.monotonic() + give_up_seconds
    is_hurried = False
    if not signals.is_terminated:
        reporter.try_once()
    reporter.begin()
    while not reporter.is_finished and time.monotonic() < deadline:
        if signals.is_terminated and not is_hurried:
            is_hurried = True
            deadline = min(deadline, time.monotonic() + SHUTDOWN_SECONDS)
        signals.wait(min(deadline - time.monotonic(), 60.0))


class Run:
    """One child from start to exit: read its output, end it on request, and kill its descendants."""

    def __init__(
        self,
        assignment: Assignment,
        order: Order,
        spool: Spool,
        reporter: Reporter,
        signals: Signals,
        nonce: str = "",
    ) -> None:
        """Start the child. Raises Refused."""
        self._order = order
        self._spool = spool
        self._reporter = reporter
        self._signals = signals
        self._notices = Notices(spool.add_notice)
        self._log = Log(spool, self._notices)
        curve = Curve(self._notices, rank=order.rank)
        words = command(assignment, order)
        directory, environment = prepare(assignment, order)
        intake = Intake(curve, spool, self._notices)
        self._sources = Sources(intake, order, environment, directory, assignment.output_directory)
        self._reports = Reports(assignment.directory / "report", curve, spool, self._notices)
        environment = {**environment, **self._sources.variables, **self._reports.variables}
        self._checkpoints = Checkpoints(assignment.checkpoint_directory, spool.add_checkpoint)
        self._provenance = Provenance(
            order, environment, directory, spool.add_source, is_packed=assignment.package is not None
        )
        try:
            self._child = start(words, directory, environment)
        except Refused:
            self._sources.close()
            self._reports.close(0.0)
            raise
        self._started_at = time.monotonic()
        self._pid = self._child.pid
        self._child.returncode = 0  # reaped here, not by subprocess, which would free the pid
        note_child(assignment.directory, self._pid)
        self._ended_by: str | None = None
        self._ended_at = 0.0
        self._lowers_at = self._started_at + TICK_SECONDS  # not for a short run; `lower_session`
        self._leaves_at = math.inf  # while the machine goes down
        self._is_ended = False  # by us; `_ended_by` may still be None
        self._is_lost = False
        self._message: str | None = None
        self._kill_at = math.inf
        self._is_paused = False
        self._files = Files(assignment, nonce, self._notices)
        self._sampler = Sampler(intake, order.gpu_indices, order.system_metrics_seconds, self._pid)
        self._patterns = Patterns(order.metrics_patterns, self._notices)
        self._selector = selectors.DefaultSelector()
        self._exited = os.pidfd_open(self._pid)
        self._selector.register(self._exited, selectors.EVENT_READ)
        self._selector.register(signals.descriptor, selectors.EVENT_READ)
        if self._reports.descriptor is not None:
            self._selector.register(self._reports.descriptor, selectors.EVENT_READ, self._reports)
        self._is_accepting = False
        self._accept_or_wait()

        def readers(name: str) -> Stream:
            return Stream(
                name, order.metrics_from, curve, self._notices, self._patterns, spool.add_points, spool.add_log
            )

        self._outputs: list[Output] = []
        self._pipes: list[Output] = []  # ended ones too
        for pipe, name in ((self._child.stdout, "STDOUT"), (self._child.stderr, "STDERR")):
            assert pipe is not None
            output = Output(os.dup(pipe.fileno()), name, readers, self._log, spool, self._notices)
            pipe.close()
            self._outputs.append(output)
            self._pipes.append(output)
            self._selector.register(output.descriptor, selectors.EVENT_READ, output)

    def to_the_end(self) -> Exit | None:
        """Serve the child until it and all its descendants are gone.

        Returns None if the exit is not the simulation's own: the machine went down. At OVER the child is killed.
        """
        try:
            return self._serve()
        finally:
            self._sources.close()
            self._reports.close(self._elapsed)

    def _serve(self) -> Exit | None:
        while not self._look():
            if self._reporter.is_over or self._reporter.is_finished:
                self._signal(signal.SIGKILL)
                kill_descendants()
                return None
            self._enforce()
            self._log.tick()
            for output in self._outputs:
                output.tick(self._elapsed)
            self._notices.write_out()
            self._pause_or_resume()
            self._accept_or_wait()
            running_seconds = time.monotonic() - self._started_at
            if running_seconds >= REPORT_SPACING_SECONDS:
                self._reporter.begin()
            if running_seconds >= TICK_SECONDS:
                self._sources.tick()
                self._provenance.begin()
                self._files.begin()
            if time.monotonic() >= self._lowers_at:
                self._lowers_at = math.inf if lower_session() else time.monotonic() + TICK_SECONDS
            self._sampler.tick()
            self._checkpoints.tick()
            reap(spared=self._pid)
        self._sources.linger()
        self._signal(signal.SIGKILL)  # the child is a zombie by now, but its group may have live processes
        _, status = os.waitpid(self._pid, 0)  # from here on the pid may be reused; with no child left, no search
        if not kill_descendants():
            self._spool.add_log("SUPERVISOR", "some process of this simulation can't be killed: the kernel holds it")
        for output in self._outputs:
            output.drain(self._elapsed)
        self._reports.close(self._elapsed)
        self._sampler.stop()
        self._sources.close()
        self._checkpoints.look()
        self._provenance.close()
        self._files.finish(self._save_until, self._gives_up_saving, self._signals.wait)
        self._log.say_dropped()
        self._patterns.note_unmatched()
        self._notices.write_out(is_last=True)
        # A shutdown may send SIGTERM to all processes at once: then the child was not killed by us.
        if self._is_lost or (self._signals.is_terminated and not self._is_ended and os.WIFSIGNALED(status)):
            # No stop was wanted, so no exit is reported: the engine finds the attempt dead, and it may be retried.
            self._spool.add_log("SUPERVISOR", "the machine is going down: the supervisor received SIGTERM")
            return None
        return Exit(
            exit_code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
            reason=self._ended_by,
            message=self._cause(status) if self._message is None and status and not self._is_ended else self._message,
        )

    def _cause(self, status: int) -> str | None:
        """The failure as a sentence with the last line of standard error, which mostly names its cause."""
        last = next(
            (
                shorten(clean(output.last_line, 2_048), MAX_CAUSE)
                for output in reversed(self._pipes)
                if output.last_line
            ),
            None,
        )
        if last is None:
            return None
        if os.WIFEXITED(status):
            return f"It ended with exit code {os.WEXITSTATUS(status)}: {last}"
        return f"It was ended by signal {os.WTERMSIG(status)}: {last}"

    @property
    def _save_until(self) -> float:
        """Until when files may be uploaded after the end (monotonic): no longer than the run may cost."""
        order = self._reporter.order_change or self._order
        until = math.inf
        if self._ended_by in UNPAID:
            until = self._ended_at + self._order.stop_grace_seconds
        if order.max_cost_seconds is not None:
            until = min(until, self._started_at + order.max_cost_seconds + self._order.stop_grace_seconds)
        return until

    def _gives_up_saving(self) -> bool:
        if self._signals.is_terminated:
            self._leaves_at = min(self._leaves_at, time.monotonic() + LEAVING_SECONDS)
        return self._reporter.is_over or time.monotonic() > self._leaves_at

    @property
    def _elapsed(self) -> float:
        return round(time.monotonic() - self._started_at, 6)

    def _look(self) -> bool:
        """Wait for events and read available output; True once the child has ended."""
        until = min(self._kill_at, self._deadline if not self._is_ended else math.inf)
        if not self._reporter.has_begun:
            until = min(until, self._started_at + REPORT_SPACING_SECONDS)
        until -= time.monotonic()
        has_exited = False
        for key, _ in self._selector.select(max(min(until, TICK_SECONDS), 0.0)):
            if isinstance(key.data, Output):
                self._read(key.data)
            elif key.fd == self._exited:
                has_exited = True
            elif key.data is self._sources:
                self._sources.accept()
            elif key.data is self._reports:
                self._reports.read(self._elapsed)
            else:
                self._signals.clear()
        return has_exited

    def _read(self, output: Output) -> None:
        if not output.read(self._elapsed):
            with contextlib.suppress(KeyError):  # not registered while paused
                self._selector.unregister(output.descriptor)
            self._outputs.remove(output)
            output.close(self._elapsed)

    @property
    def _limits(self) -> list[tuple[float, str, str]]:
        """Limits in seconds from the child's start, each with its reason and its sentence; the shortest first."""
        order = self._reporter.order_change or self._order
        runtime, paid = order.max_runtime_seconds, order.max_cost_seconds
        limits = []
        if runtime is not None:
            limits.append((runtime, "MAX_RUNTIME", f"It ran longer than its limit of {_seconds(runtime)}."))
        if paid is not None:
            grace = _seconds(self._order.stop_grace_seconds)
            pays = (
                f"Its cost limit pays for no more than {_seconds(paid)} of this attempt and its stop grace of {grace}."
            )
            limits.append((paid, "MAX_COST", pays))
        return sorted(limits)

    @property
    def _deadline(self) -> float:
        limits = self._limits
        return self._started_at + limits[0][0] if limits else math.inf

    def _enforce(self) -> None:
        """End the child at a stop, SIGTERM or a limit of time or cost; kill it if it outlasts its grace."""
        now = time.monotonic()
        if self._is_ended:
            if now >= self._kill_at:
                self._kill_at = math.inf
                self._signal(signal.SIGKILL)
        elif self._reporter.is_stop_wanted:
            self._end(self._reporter.stop_reason, None)
        elif self._signals.is_terminated:
            self._end(None, None)
            self._is_lost = self._is_ended
        elif now >= self._deadline:
            _, reason, message = self._limits[0]
            self._end(reason, message)

    def _end(self, reason: str | None, message: str | None) -> None:
        if os.waitid(os.P_PIDFD, self._exited, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return  # the child has exited already, and its own exit is reported
        self._is_ended, self._ended_by, self._message = True, reason, message
        self._ended_at = time.monotonic()
        self._kill_at = self._ended_at + self._order.stop_grace_seconds
        self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        # The child is reaped last, so neither its pid nor its group's number can be reused by now.
        with contextlib.suppress(PermissionError):  # the child changed its user
            try:
                os.killpg(self._pid, number)
            except ProcessLookupError:  # the child left its group
                os.kill(self._pid, number)

    def _pause_or_resume(self) -> None:
        if self._spool.is_full != self._is_paused:
            self._is_paused = not self._is_paused
            complain("nowhere to keep output: the simulation waits" if self._is_paused else "reading output again")
            watched: list[tuple[int | None, object]] = [(output.descriptor, output) for output in self._outputs]
            for descriptor, reader in [*watched, (self._reports.descriptor, self._reports)]:
                if descriptor is None:
                    continue
                if self._is_paused:
                    self._selector.unregister(descriptor)
                else:
                    self._selector.register(descriptor, selectors.EVENT_READ, reader)

    def _accept_or_wait(self) -> None:
        """Watch the sources' listener while another connection may be accepted."""
        descriptor = self._sources.descriptor
        if descriptor is not None and self._sources.has_room != self._is_accepting:
            self._is_accepting = not self._is_accepting
            if self._is_accepting:
                self._selector.register(descriptor, selectors.EVENT_READ, self._sources)
            else:
                self._selector.unregister(descriptor)


class Signals:
    """Wake-ups of the reader: signals to this process, and the reporter's `wake`."""

    def __init__(self) -> None:
        self.is_terminated = False
        self.descriptor, self._writer = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._writer, False)
        # The parent may have blocked or ignored signals, which is inherited.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, self._terminate)
        # Handlers that do nothing: the child would inherit ignored signals.
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, self._stay)

    def wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # full: the reader wakes up anyway
            os.write(self._writer, b"\0")

    def wait(self, seconds: float) -> None:
        """Wait until woken, at most `seconds`."""
        select.select([self.descriptor], [], [], max(seconds, 0.0))
        self.clear()

    def clear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 4096)

    def _terminate(self, *_: object) -> None:
        self.is_terminated = True

    def _stay(self, *_: object) -> None:
        """Ignore the signal."""
