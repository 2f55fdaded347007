"""Write the summary of a run into its cache: `summary.json`; `cache_schemas.past_run` reads it."""

import json
from dataclasses import replace
from datetime import UTC, datetime

from cache_schemas.cache_files import files_at
from cache_schemas.group_path import SUMMARY
from cache_schemas.lock import writing
from pipelines.summary import RunSummary


def write_summary(summary: RunSummary, holder: str) -> None:
    """Replace `summary.json` in the cache as one write, for the run `holder`.

    Raises:
        CacheError: if the file is a link, or another run has taken over.
        OSError: if it cannot be written.
    """
    finished = replace(summary, finished=datetime.now(UTC).isoformat(timespec="seconds"))
    text = json.dumps(finished.to_dict(), indent=2)
    files = files_at(summary.cache)
    files.refuse_links(SUMMARY)
    with writing(summary.cache, holder):
        files.put({SUMMARY: text.encode()})
