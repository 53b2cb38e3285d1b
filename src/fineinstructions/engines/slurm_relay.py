"""The relays of a detached run: jobs that take turns at being its driver, while nobody waits between them.

Started by Slurm as ``python -m fineinstructions.engines.slurm_relay``. In: the command that goes on with the run. Out:
the run's next phases, an array that is at work, and the relay that comes after it; or the end, and why.

The decision a reader would question: a relay submits its successor before it does anything else, to start when it has
ended in whatever way (``afterany``). So a relay that is killed is followed by another; one that hands over makes its
successor wait for the arrays too, and one that is done takes it back.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fineinstructions.engines.crew import MAX_DEATHS
from fineinstructions.engines.slurm_config import SlurmConfig
from fineinstructions.engines.slurm_queue import SlurmQueue, jobs_named
from fineinstructions.errors import ConfigError, HandedOverError, printable
from fineinstructions.runs.detached import FILE, LINK_VARIABLE, Detached, goes_on
from fineinstructions.runs.folder import RunFolder
from fineinstructions.runs.lease import lease_token

CANCEL_SECONDS = 60.0
PROGRAM_SAYS = "fineinstructions: "
"""What the line begins with that says why the program ended."""


@dataclass(frozen=True, slots=True)
class Relay:
    """What every relay of a run is told, on its command line: nothing on a shared disk says what is to be run."""

    root: str
    token: str
    options: tuple[str, ...]
    """Options of sbatch."""
    script: str
    command: tuple[str, ...]
    """Goes on with the run."""

    def submit(self, queue: SlurmQueue, predecessor: str = "") -> str:
        """Submit a relay that starts when its predecessor has ended; gives its job."""
        after = [f"--dependency=afterany:{predecessor}"] if predecessor else []
        me = [sys.executable, "-m", "fineinstructions.engines.slurm_relay"]
        told = [self.root, self.token, predecessor, json.dumps(self.options), self.script, *self.command]
        return queue.submit([*self.options, *after], Path(self.script), [*me, *told])


def begin(run: RunFolder, queue: SlurmQueue, config: SlurmConfig, command: Sequence[str]) -> HandedOverError:
    """Submit the first relay of a run, whose lease the caller holds and leaves by raising what this gives."""
    root, logs = str(run.root.absolute()), run.logs.absolute() / "slurm"
    logs.mkdir(exist_ok=True)
    options = [
        f"--comment=relay of {run.root}",
        f"--output={logs}/relay-%j.log",
        f"--chdir={Path.cwd()}",
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=1",
        *config.named(),
        *config.relay_options,
    ]
    token = lease_token(run.lease_file)
    Detached(token, queue.name).save(run.root)  # the relay may start at once, and says itself which job it is
    try:
        first = Relay(root, token, tuple(options), str(config.script), tuple(command)).submit(queue)
    except ConfigError:
        (run.root / FILE).unlink()
        raise
    return HandedOverError(
        f"{run.root}: Slurm job {first} goes on with the run, nothing waits here; `fineinstructions status {run.root}`"
        f" says how far it is, `scancel --name={queue.name}` stops it"
    )


def ours_of(run: RunFolder) -> Detached:
    """The detached run that this process is a relay's driver of."""
    found = goes_on(run.root)
    assert found is not None, "the lease of a detached run is held by its relay"
    return found


def hand_over(run: RunFolder, queue: SlurmQueue, phase: str, arrays: Collection[str]) -> HandedOverError:
    """Have the successor of this relay wait for arrays; the caller ends by raising what this gives.

    Raises:
        BackendError: If the successor is gone.
    """
    ours = ours_of(run)
    *before, successor = ours.relays
    queue.delay(successor, [*before, *arrays])
    waited_for = tuple(sorted(arrays))
    begun = tuple(dict.fromkeys([*ours.begun, phase]))
    replace(ours, phase=phase, arrays=waited_for, relays=(successor,), begun=begun).save(run.root)
    return HandedOverError(
        f"phase {phase!r}: Slurm job {', '.join(waited_for)} does its units, then {successor} goes on"
    )


def note_begun(run: RunFolder, phase: str) -> None:
    """Note that this relay has seen to a phase, so that the next ones do not try failed records of it again."""
    ours = ours_of(run)
    if phase not in ours.begun:
        replace(ours, phase="", arrays=(), begun=(*ours.begun, phase)).save(run.root)


def refuse_while_detached(root: Path) -> None:
    """Refuse to take over a detached run whose jobs are in Slurm's queue.

    Raises:
        ConfigError: If they are.
    """
    found = Detached.load(root)
    if found is None or found.is_ours or found.ended:
        return
    jobs = sorted({job for job, _, _ in jobs_named(found.job_name) or ()})
    if jobs:
        raise ConfigError(
            f"{root}: Slurm jobs {', '.join(jobs)} go on with this run; see `fineinstructions status {root}`, or end"
            f" them with `scancel --name={found.job_name}` and run again"
        )


def told(root: Path, found: Detached) -> str:
    """How a detached run fares, for people; one line."""
    if found.ended:
        return f"detached, and ended: {found.ended}; its log is {found.log}"
    jobs = jobs_named(found.job_name)
    stop = f"logs in {root}/logs/slurm; `scancel --name={found.job_name}` stops it"
    if jobs is None:
        waits = " and ".join([*found.arrays, *found.relays[-1:]])
        return f"detached: Slurm jobs {waits} go on with it, says the folder; no squeue here says how they fare; {stop}"
    if not jobs:
        return "detached, but none of its jobs is in Slurm's queue any more (scancel?); the same command goes on"
    lines = [f"{job} {state.lower()}{_why(reason)}" for job, state, reason in jobs]
    arrays = [job for job in found.arrays if any(job == live for live, _, _ in jobs)]
    at = f"phase {found.phase}: waiting for Slurm job {', '.join(arrays)}" if arrays else "between phases"
    return f"detached, {at} ({', '.join(dict.fromkeys(lines))}); {stop}"


def _why(reason: str) -> str:
    return "" if reason in ("None", "(null)", "") else f": {reason}"


def main(arguments: Sequence[str]) -> int:
    """Be one relay.

    Args:
        arguments: The fields of `Relay`, with the job of the relay before this one after the first two.

    Returns:
        Exit code; not 0 where the run ended with one, or the driver was killed.
    """
    root, token, predecessor, options, script, *command = arguments
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # that the time is nearly up; what is under way may come to its end
    relay, me = Relay(root, token, tuple(json.loads(options)), script, tuple(command)), os.environ["SLURM_JOB_ID"]
    found = _turn(relay, predecessor, me)
    if found is None:
        print(f"relay {me}: the run has another driver, or none any more; nothing to do")
        return 0
    queue = SlurmQueue(Path(root))
    if len(found.relays) > MAX_DEATHS:
        return _end(relay, queue, f"{MAX_DEATHS} relays were killed one after the other; see their logs", me, 1)
    if found.relays[-1] == me:  # else it was put back into the queue, and its successor is there
        replace(found, relays=(*found.relays, relay.submit(queue, me))).save(Path(root))
    code, line = _drive(relay)
    left = _mine(relay)
    if left is not None and me not in left.relays:
        return 0
    if left is not None and code < 0:
        print(f"relay {me}: its driver was killed by signal {-code}; job {left.relays[-1]} goes on", file=sys.stderr)
        return 1
    return _end(relay, queue, line if code else "", me, code)


def _mine(relay: Relay) -> Detached | None:
    """The detached run, unless it is over or somebody else's."""
    found = Detached.load(Path(relay.root))
    return found if found is not None and found.token == relay.token and not found.ended else None


def _turn(relay: Relay, predecessor: str, me: str) -> Detached | None:
    """The detached run, where it is this relay's turn to drive it."""
    found = _mine(relay)
    if found is None or me in found.relays:
        return found
    if found.relays[-1:] != ((predecessor,) if predecessor else ()):
        return None
    return replace(found, relays=(*found.relays, me))  # the first, or who submitted it was killed before it told


def _drive(relay: Relay) -> tuple[int, str]:
    """Go on with the run; gives the exit code, and the line that says why it is not 0."""
    last = said = ""
    environment = {**os.environ, LINK_VARIABLE: relay.token}
    with subprocess.Popen(
        relay.command, env=environment, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace"
    ) as driver:
        assert driver.stderr is not None
        for line in driver.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            last = line.strip() or last
            said = line.removeprefix(PROGRAM_SAYS).strip() if line.startswith(PROGRAM_SAYS) else said
    return driver.returncode, said or last


def _end(relay: Relay, queue: SlurmQueue, why: str, me: str, code: int) -> int:
    """End the detached run: nothing of it stays in the queue, and the folder says why, where all is not well."""
    root = Path(relay.root)
    queue.cancel(CANCEL_SECONDS, keep={me})
    found = _mine(relay)
    if found is not None and (why or code):
        line = printable(why or f"its driver ended with exit code {code}")
        replace(found, ended=line, log=f"{root}/logs/slurm/relay-{me}.log").save(root)
    elif found is not None:
        (root / FILE).unlink()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
