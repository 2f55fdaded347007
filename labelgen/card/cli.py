"""The command `labelgen card`."""

import sys
from contextlib import nullcontext

import click

from cache_schemas.command_line import fail, reports_errors


@click.command(short_help="Describe a cache for others: content, accuracy, licences.")
@click.argument("cache")
@click.option("--stdout", is_flag=True, help="Print the card as Markdown; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the card as Croissant JSON-LD; write nothing.")
@click.option("--licence", metavar="TEXT", help="Licence of data that declares none, such as your own.")
@reports_errors("nothing was written; run the same command again")
def card(cache: str, stdout: bool, as_json: bool, licence: str | None) -> None:
    """Write the card of CACHE into it: README.md for people and the Hub, croissant.json for programs.

    The card says what the cache holds, which networks made the labels, how accurate they are, what is wrong with them,
    and which licences apply. It reads all labels, as `labelgen inspect` does. A run leaves the card as it is, so write
    it again afterwards; `labelgen pack` refuses a card of an earlier state.

    \b
    Examples:
      labelgen card out/nuscenes.zarr
      labelgen card out/mine.zarr --licence "CC BY 4.0"
      labelgen card out/nuscenes.zarr --stdout | less

    \b
    Exit codes: 0 written or printed, 1 there is no cache, or nothing in it is finished.
    """
    from tqdm.dask import TqdmCallback

    from cache_schemas.card_files import write_card
    from cache_schemas.lock import run_lock
    from cache_schemas.names import is_plain
    from cache_schemas.store import Cache
    from labelgen.card.croissant import render_croissant
    from labelgen.card.facts import collect_facts
    from labelgen.card.readme import render_readme
    from labelgen.inspection.audit import inspect_cache

    if stdout and as_json:
        raise click.UsageError("--stdout and --json exclude each other")
    if licence is not None and (not licence.strip() or not is_plain(licence)):
        raise click.UsageError(f"--licence {licence!r}: give its name in one line, such as 'CC BY 4.0'")
    opened, _ = Cache.open(cache)
    with nullcontext() if stdout or as_json else run_lock(cache):
        with TqdmCallback(desc="reading shards", unit="task", delay=2, leave=False, disable=None, file=sys.stderr):
            facts = collect_facts(inspect_cache(cache), licence)
        if stdout:
            click.echo(render_readme(facts), nl=False)
        elif as_json:
            click.echo(render_croissant(facts), nl=False)
        else:
            try:
                names = write_card(opened, render_readme(facts), render_croissant(facts))
            except OSError as error:
                fail(f"{cache}: the card cannot be written ({error.strerror or error}); print it with --stdout")
            click.echo(f"{cache}: wrote {' and '.join(names)}")
