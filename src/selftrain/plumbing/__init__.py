"""Files, locks, progress, MLflow and the machine: no result depends on what is in here."""
