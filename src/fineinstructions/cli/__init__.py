"""Front door: one program, one short function per verb. What a verb needs is imported when it runs."""

import shlex
import sys
from typing import Annotated

import typer

from fineinstructions import __version__
from fineinstructions.cli import (
    banks,
    corpora,
    evaluations,
    experiments,
    indexes,
    judges,
    looks,
    machine,
    pretraining,
    reviews,
    rows,
    runs,
    students,
    tokenizers,
    training,
)
from fineinstructions.errors import (
    BackendError,
    ConfigError,
    FineInstructionsError,
    HandedOverError,
    PendingError,
    printable,
)
from fineinstructions.garbage import look_no_more, look_seldom

app = typer.Typer(
    name="fineinstructions",
    help="Turn real user queries and a pre-training corpus into grounded instruction-answer pairs.",
    epilog="Exit codes: 0 all is well; 1 records or units failed, verify found a problem, or a server gave out; "
    "2 a mistake in a recipe, an input or the command; 3 batch files wait for their answers, or jobs of a cluster "
    "go on with the run; 130 stopped with Ctrl-C.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

app.command("run")(runs.run)
app.command("distill")(students.distill)
app.command("status")(runs.status)
app.command("verify")(runs.verify)
app.command("pack")(runs.pack)
app.command("inspect")(looks.inspect)
app.command("explain")(looks.explain)
app.command("view")(reviews.view)
app.command("report")(reviews.report)
app.command("audit")(reviews.audit)
app.command("try")(looks.try_document)
app.command("instantiate")(rows.instantiate)
app.command("yields")(rows.yields)
app.command("export")(corpora.export)
app.command("push")(corpora.push)
app.command("pretrain")(pretraining.pretrain)
app.command("experiment")(experiments.experiment)
app.command("score")(experiments.score)
app.command("eval")(evaluations.evaluate)
app.command("compare")(evaluations.compare)
app.command("doctor")(machine.doctor)
app.command("schema")(machine.schema)
app.add_typer(banks.app, name="templates")
app.add_typer(indexes.app, name="index")
app.add_typer(judges.app, name="judge")
app.add_typer(training.app, name="train")
app.add_typer(tokenizers.app, name="tokenizer")

EXIT_LOSS = 1
EXIT_MISTAKE = 2
EXIT_PENDING = 3
EXIT_INTERRUPTED = 130


def _version(wanted: bool) -> None:
    if wanted:
        print(f"fineinstructions {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    del version


def main() -> None:
    """Run the program; a mistake of the user is one line and exit code 2."""
    look_seldom()
    try:
        app(prog_name="fineinstructions")
    except ConfigError as error:
        _leave(str(error), EXIT_MISTAKE)
    except (PendingError, HandedOverError) as error:
        _leave(str(error), EXIT_PENDING)
    except BackendError as error:
        _leave(f"{error}\nwhat is committed stays; run the same command again to continue: {_command()}", EXIT_LOSS)
    except FineInstructionsError as error:
        _leave(str(error), EXIT_LOSS)
    except SystemExit as leaving:
        if leaving.code != EXIT_INTERRUPTED:  # what typer makes of Ctrl-C
            raise
        _leave(
            f"stopped; what is committed stays, run the same command again to continue: {_command()}", EXIT_INTERRUPTED
        )
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(EXIT_LOSS)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        _leave(
            f"{printable(place + (error.strerror or str(error)))}; what is committed stays, mend it and run again",
            EXIT_MISTAKE,
        )
    finally:
        look_no_more()


def _command() -> str:
    """The command line as it can be given again."""
    return printable(shlex.join(["fineinstructions", *sys.argv[1:]]))


def _leave(line: str, code: int) -> None:
    print(f"fineinstructions: {line}", file=sys.stderr)
    sys.exit(code)
