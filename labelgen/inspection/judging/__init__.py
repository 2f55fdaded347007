"""Judge what was counted: outliers, errors by class, the worst samples, the verdict, changes between caches."""
