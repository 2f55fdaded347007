"""The command `labelgen pack`: a cache in one file."""
