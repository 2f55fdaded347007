"""Where, when and how often label work runs: configs, plan, Ray pools, resume."""
