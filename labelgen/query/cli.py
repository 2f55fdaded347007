"""The command `labelgen query`."""

import json
from pathlib import Path

import click

from cache_schemas.command_line import fail, reports_errors


@click.command(short_help="Find the masks and pictures that fit a sentence best.")
@click.argument("cache")
@click.argument("sentence")
@click.option("--top", default=20, show_default=True, type=click.IntRange(1, 1000), help="Number of hits of each kind.")
@click.option("--html", type=click.Path(path_type=Path), metavar="FILE", help="Also show them on one page.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object with masks, pictures and samples.")
@reports_errors("run the same command again")
def query(cache: str, sentence: str, top: int, html: Path | None, as_json: bool) -> None:
    """Rank the masks, pictures and samples of a cache by how well they fit a sentence.

    The cache must hold `clip/features` (--set clip.store_features=true). CLIP's text encoder runs on the CPU. It
    needs no GPU and no raw data.

    \b
    Examples:
      labelgen query out/nuscenes.zarr "a red fire truck"
      labelgen query out/nuscenes.zarr "a person with a stroller" --top 50 --html out/strollers.html
    """
    from cache_schemas.names import printable
    from labelgen.query.page import write_page
    from labelgen.query.ranking import rank

    found = rank(cache, sentence, top)
    if as_json:
        click.echo(json.dumps(found.to_dict(), indent=2))
    else:
        click.echo("score  label                 share  mask, camera, sample, shard")
        for hit in found.masks:
            place = f"{hit.mask}, {hit.camera}, {hit.sample}, {hit.shard}"
            click.echo(printable(f"{hit.score:5.3f}  {hit.label:<20} {100 * hit.share:5.1f}%  {place}"))
        click.echo(
            printable(f"best pictures: {', '.join(f'{hit.camera} of {hit.sample}' for hit in found.pictures[:3])}")
        )
        click.echo(printable(f"best samples: {', '.join(hit.sample for hit in found.samples[:3])}"))
    if html:
        try:
            write_page(found, html)
        except OSError as error:
            fail(f"{html}: cannot be written ({error.strerror}); choose another file with --html")
        click.echo(f"wrote {html}", err=True)
