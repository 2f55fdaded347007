"""The `trainer` command."""

import click


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="labelgen")
def main() -> None:
    """Train from a cache of pseudo labels."""
