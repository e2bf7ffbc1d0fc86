"""The command ``lineage``: a model's line as a tree in the terminal."""

from typing import TYPE_CHECKING

from selftrain.history.lineage import Link, commit_is_known

if TYPE_CHECKING:
    from rich.tree import Tree

STYLES = {"found": "green", "recorded": "dim", "changed": "bold red", "missing": "bold red"}


def print_lineage(line: Link) -> bool:
    """Print a line as a tree, with what MLflow and git do not know; return whether everything is as recorded."""
    from rich.console import Console

    links = list(line.all())
    runs = _runs_not_in_mlflow({link.mlflow_run_id for link in links if link.mlflow_run_id})
    commits = {link.git_commit for link in links if link.git_commit and not commit_is_known(link.git_commit)}
    console = Console(width=160 if not Console().is_terminal else None, markup=False)
    console.print(_tree(line, runs, commits))
    broken = [link for link in links if link.state in ("changed", "missing")]
    for link in {id(link): link for link in broken}.values():
        console.print(f"{link.state}: {link.kind} {link.path}: {link.trouble}", style="bold red", soft_wrap=True)
    for unknown, where in (
        (runs, "MLflow runs are not in this MLflow"),
        (commits, "commits are not in this repository"),
    ):
        if unknown:
            console.print(f"missing: {len(unknown)} {where}", style="bold red")
    whole = not (broken or runs or commits)
    if whole:
        console.print("every link is as it was recorded", style="green")
    return whole


def _tree(link: Link, unknown_runs: set[str], unknown_commits: set[str], into: "Tree | None" = None) -> "Tree":
    from rich.text import Text
    from rich.tree import Tree

    text = Text.assemble((f"{link.kind} ", "bold"), link.path, "  ", (link.digest[:12], "cyan"), "  ")
    text.append(link.state, STYLES[link.state])
    if link.trouble:
        text.append(f": {link.trouble}", STYLES[link.state])
    if link.mlflow_run_id:
        text.append(
            f"  MLflow {link.mlflow_run_id[:8]}" + (" (not there)" if link.mlflow_run_id in unknown_runs else "")
        )
    if link.git_commit:
        changes = "+changes" if "+" in link.git_commit else ""
        text.append(
            f"  git {link.git_commit[:10]}{changes}" + (" (not there)" if link.git_commit in unknown_commits else "")
        )
    tree = into.add(text) if into is not None else Tree(text)
    for child in link.made_from:
        _tree(child, unknown_runs, unknown_commits, tree)
    return tree


def _runs_not_in_mlflow(run_ids: set[str]) -> set[str]:
    from selftrain.plumbing.errors import UserError
    from selftrain.plumbing.tracking import connect

    try:
        client, _ = connect()
    except UserError:
        return run_ids
    from mlflow.exceptions import MlflowException

    unknown = set()
    for run_id in run_ids:
        try:
            client.get_run(run_id)
        except MlflowException:
            unknown.add(run_id)
    return unknown
