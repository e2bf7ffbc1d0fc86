"""The report: one static page, the table in the terminal, and what MLflow keeps of both."""
