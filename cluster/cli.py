"""The command line. Each command imports what it needs when it runs, so `--help` answers at once.

Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted (what is durable stays).
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from cluster.interrupt import sigterm_as_interrupt
from specs.errors import DuologueError, InputError

F = TypeVar("F", bound=Callable[..., Any])


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="duologue")
def cli(debug: bool) -> None:
    """Write training data for task-oriented dialogue agents: two models play a scene.

    A domain says how the conversation may go; a run file says which models play it, how often and
    where. Try: duologue domain rehearse recipe
    """


def _run_options(command: F) -> F:
    command = click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override the run file, such as run.dialogues=100 (repeatable).",
    )(command)
    return click.argument("run_file", type=click.Path(path_type=Path))(command)


# -- domains


@cli.group()
def domain() -> None:
    """Write, check, look at and rehearse a domain."""


_corpus = click.option(
    "--corpus", type=click.Path(path_type=Path), help="Documents in place of the domain's own."
)


@domain.command("new")
@click.argument("folder", type=click.Path(path_type=Path))
def domain_new(folder: Path) -> None:
    """Write a small commented domain into FOLDER, to start from."""
    from cluster.domain_commands import new

    new(folder)


@domain.command("check")
@click.argument("path")
@_corpus
def domain_check(path: str, corpus: Path | None) -> None:
    """Report everything that is wrong with the domain at PATH (a folder, or a shipped name)."""
    from cluster.domain_commands import check

    check(path, corpus)


@domain.command("show")
@click.argument("path")
@_corpus
@click.option("--walks", default=2000, show_default=True, help="Walks to sample.")
@click.option("--svg", type=click.Path(path_type=Path), help="Write the graph as SVG.")
@click.option("--mermaid", type=click.Path(path_type=Path), help="Write the graph for Mermaid.")
@click.option("--seed", default=0, show_default=True)
def domain_show(
    path: str, corpus: Path | None, walks: int, svg: Path | None, mermaid: Path | None, seed: int
) -> None:
    """Print the graph's figures and what sampled walks do, and draw it."""
    from cluster.domain_commands import show

    show(path, corpus, walks, seed, svg, mermaid)


@domain.command("rehearse")
@click.argument("path")
@_corpus
@click.option("-n", "--dialogues", default=1, show_default=True)
@click.option("--first", default=0, show_default=True, help="Index of the first dialogue.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--policy",
    type=click.Choice(["walk", "routed", "hybrid"]),
    default="walk",
    show_default=True,
    help="What draws the user's intents, or finds them in free talk.",
)
@click.option(
    "--manager",
    type=click.Choice(["rouge", "embedding"]),
    default="rouge",
    show_default=True,
    help="What free replies are compared with references by (embedding: of their words, no model).",
)
@click.option(
    "--trait",
    "traits",
    multiple=True,
    metavar="NAME[=SHARE]",
    help="Users who are so (terse, vague, impatient, gives_up, changes_mind, wrong_fact, "
    "corrects_agent, two_intents); may come again.",
)
def domain_rehearse(
    path: str,
    corpus: Path | None,
    dialogues: int,
    first: int,
    seed: int,
    policy: str,
    manager: str,
    traits: tuple[str, ...],
) -> None:
    """Play dialogues with the domain's own references, without a model, and print them."""
    from cluster.domain_commands import rehearse

    rehearse(path, corpus, dialogues, first, seed, policy, manager, traits)


@domain.group("import")
def domain_import() -> None:
    """Make domains of what others have written."""


@domain_import.command("star")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--mapping",
    "mappings",
    multiple=True,
    type=click.Path(path_type=Path),
    help="What the task files do not say, one file a task (repeatable; seven are shipped).",
)
@click.option(
    "--dialogues",
    type=click.Path(path_type=Path),
    help="People's dialogues, JSON lines or .gz; else the file that lies beside the task files.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write a domain a task in here.",
)
@click.option(
    "--curated",
    type=click.Path(path_type=Path),
    help="Write the dialogues themselves as a run of this name, to be trained on.",
)
def domain_import_star(
    paths: Sequence[Path],
    mappings: Sequence[Path],
    dialogues: Path | None,
    out: Path | None,
    curated: Path | None,
) -> None:
    """Import STAR's task files at PATHS (files, or folders of them) and name every guess."""
    from cluster.star_command import import_star

    import_star(paths, mappings, dialogues, out, curated)


# -- runs


@cli.command()
@_run_options
def plan(run_file: Path, settings: Sequence[str]) -> None:
    """Say what RUN_FILE will take, and whether it fits, before anything of it is started."""
    from cluster.plan import command
    from specs.run_file import load

    command(load(run_file, settings))


@cli.command()
@_run_options
@click.option("--fresh", is_flag=True, help="Delete what this run has made, and start over.")
@click.option(
    "--retry-failed",
    "retry",
    is_flag=True,
    help="Play again what failed for want of words or by an error (no_words, unparsed, refused, "
    "error).",
)
def generate(run_file: Path, settings: Sequence[str], fresh: bool, retry: bool) -> None:
    """Play the dialogues that RUN_FILE asks for and that are not there yet."""
    from cluster.generate import generate as command
    from specs.run_file import load

    if fresh and retry:
        raise click.UsageError("--fresh deletes what --retry-failed would look at: give one")
    command(load(run_file, settings), fresh, retry)


@cli.command()
@_run_options
@click.option("--fresh", is_flag=True, help="Do it again, even where nothing has changed.")
def curate(run_file: Path, settings: Sequence[str], fresh: bool) -> None:
    """Measure and filter the dialogues of RUN_FILE, and make training examples of them."""
    from cluster.curate import command
    from specs.run_file import load

    command(load(run_file, settings), fresh)


@cli.command()
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default="runs/calibration",
    show_default=True,
    help="Folder for the figures (JSON) and the plot (PNG).",
)
@click.option("--embedding", default="minilm", show_default=True, help="As in a run file.")
@click.option(
    "--threshold",
    "thresholds",
    type=click.FloatRange(0, 1, min_open=True),
    multiple=True,
    default=(0.33,),
    show_default=True,
    help="Say what this one is worth, beside the best (repeatable).",
)
@click.option("--seed", default=0, show_default=True, help="Of the halves and the intervals.")
@click.option("--resamples", default=1000, show_default=True, type=click.IntRange(min=100))
def calibrate(
    data: Path, out: Path, embedding: str, thresholds: Sequence[float], seed: int, resamples: int
) -> None:
    """Find the likeness from which on a reference names what was said, on labelled dialogues.

    DATA is a JSONL file with `dialogue`, `text`, `label` and `references` on each line, or the
    folder of the STAR data set, or that of a run, whose own agent turns are labelled by their
    states.
    """
    from cluster.calibrate import command

    command(data, out, embedding, thresholds, seed, resamples)


@cli.command()
@_run_options
@click.option("--fresh", is_flag=True, help="Train anew, not from the last checkpoint.")
def train(run_file: Path, settings: Sequence[str], fresh: bool) -> None:
    """Fine-tune an adapter on the training examples of RUN_FILE's run."""
    from cluster.train import command
    from specs.run_file import load

    command(load(run_file, settings), fresh)


@cli.command()
@_run_options
@click.option(
    "--data", metavar="PATH", help="Dialogues in the curated format in place of the test split."
)
@click.option("--fresh", is_flag=True, help="Ask every system again.")
def evaluate(run_file: Path, settings: Sequence[str], data: str | None, fresh: bool) -> None:
    """Measure the adapter of RUN_FILE, and its opponents, on dialogues that it never saw."""
    from cluster.evaluate import command
    from specs.run_file import load

    command(load(run_file, settings), fresh, data)


@cli.command()
@_run_options
def report(run_file: Path, settings: Sequence[str]) -> None:
    """Show what RUN_FILE has made, on one page with figures, tables and dialogues to read."""
    from cluster.report import command
    from specs.run_file import load

    command(load(run_file, settings))


@cli.command("run")
@_run_options
@click.option("--fresh", is_flag=True, help="Delete what this run has made, and start over.")
def run_(run_file: Path, settings: Sequence[str], fresh: bool) -> None:
    """Generate, curate, train, evaluate and report, each where it is still to be done."""
    from cluster.whole_run import run_all
    from specs.run_file import load

    run_all(load(run_file, settings), fresh)


@cli.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override every arm's run file; name and out are the experiment's (repeatable).",
)
@click.option("--fresh", is_flag=True, help="Delete what its arms have made, and start over.")
def experiment(path: Path, settings: Sequence[str], fresh: bool) -> None:
    """Compare the arms of the experiment file at PATH: a table with intervals, and a plot."""
    from cluster.experiment import command
    from specs.experiment_file import load_experiment

    command(load_experiment(path, settings), fresh)


@cli.command()
@click.argument("run")
@click.option(
    "--to", "form", type=click.Choice(["trl", "sharegpt", "openai"]), required=True, help="Form."
)
@click.option("--out", required=True, metavar="FOLDER", help="A new folder, or an export's.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE")
def export(run: str, form: str, out: str, settings: Sequence[str]) -> None:
    """Write the curated examples of RUN (its folder, or its run file) as JSONL, with a card."""
    from cluster.export import export as command

    command(run, tuple(settings), form, out)


@cli.command("show")
@click.argument("run")
@click.option("--index", default=None, type=int, help="Which dialogue.")
@click.option("--random", "random_", is_flag=True, help="Any dialogue.")
@click.option("--prompts", is_flag=True, help="With the exact prompts.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE")
def show_dialogue(
    run: str, index: int | None, random_: bool, prompts: bool, settings: Sequence[str]
) -> None:
    """Print a dialogue of RUN (a run's folder, or its run file)."""
    from cluster.show import show

    if random_ and index is not None:
        raise InputError("--index and --random: give one of the two")
    show(run, settings, index, random_, prompts)


@cli.command()
@click.argument("path")
@click.option(
    "--as", "side", type=click.Choice(["user", "agent"]), default="user", show_default=True
)
@click.option(
    "--run",
    "run_file",
    default="specs/runs/demo.toml",
    show_default=True,
    help="Run file whose engine plays the other side.",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE")
@click.option(
    "--index",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Which plan to play.",
)
@click.option(
    "--adapter",
    metavar="FOLDER",
    help="Talk to this trained adapter (or that of this run's folder): it calls its tools.",
)
def play(
    path: str, side: str, run_file: str, settings: Sequence[str], index: int, adapter: str | None
) -> None:
    """Take one side yourself, against the model, in the domain at PATH."""
    if adapter is not None:
        from cluster.play_adapter import play_adapter

        if side == "agent":
            raise InputError("--as agent: an adapter plays the agent; you are the user")
        play_adapter(path, adapter, run_file, tuple(settings), index)
        return
    from cluster.play import play as command

    command(path, side, run_file, tuple(settings), index)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    debug = "--debug" in arguments
    # `--debug` may stand anywhere; click would only take it before the command.
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        with sigterm_as_interrupt():
            cli.main(arguments, prog_name="duologue", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted; what is durable stays", err=True)
        sys.exit(130)
    except DuologueError as error:
        if debug:
            traceback.print_exc()
        _tell(f"error: {error}" if not isinstance(error, InputError) else str(error))
        sys.exit(2 if isinstance(error, InputError) else 1)
    except Exception as error:
        if debug:
            raise
        _tell(f"error: unexpected {type(error).__name__}: {error}")
        click.echo("    A fault of Duologue; the same command with --debug shows where.", err=True)
        sys.exit(1)


def _tell(text: str) -> None:
    # An error may hold a server's words, which must not steer the terminal.
    from cluster.show import plain

    click.echo(plain(text, newlines=True), err=True)


if __name__ == "__main__":
    main()
