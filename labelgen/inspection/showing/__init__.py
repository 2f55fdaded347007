"""Show a report: as text in a terminal, as an HTML page, as pictures, as a rerun recording."""
