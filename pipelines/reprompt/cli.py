"""The command `labelgen reprompt`."""

import time

import click

from cache_schemas.command_line import reports_errors, say
from cache_schemas.plurals import counted


@click.command(short_help="Give a cache other prompts, without CLIP's image network.")
@click.argument("cache")
@click.option("--prompts", required=True, metavar="FILE", help="A prompt file, or the name of a shipped set.")
@reports_errors("run the same command again to continue")
def reprompt(cache: str, prompts: str) -> None:
    """Give a cache that holds `clip/features` other prompts: other names of its classes, or other templates.

    CLIP's text encoder runs on the CPU; scores and labels are computed from the stored features. Neither the raw
    data nor SAM nor a GPU is needed. A later `labelgen run` takes the same prompts (--set prompts=FILE) and finds the
    cache up to date.

    \b
    Examples:
      labelgen run --dataset nuscenes --data /data/nuscenes --cache out/n.zarr --set clip.store_features=true
      labelgen reprompt out/n.zarr --prompts mine.yaml
    """
    from pipelines.reprompt.redo import reprompt as redo

    start = time.monotonic()
    shards = redo(cache, prompts, say)
    click.echo(f"{cache}: {counted(shards, 'shard')} redone for prompts {prompts} in {time.monotonic() - start:.1f} s")
