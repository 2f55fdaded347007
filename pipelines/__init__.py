"""Where, when and how often label work runs: settings, plan, Ray tasks and actors, resume."""
