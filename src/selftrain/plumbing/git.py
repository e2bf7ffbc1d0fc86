"""The git commit of the folder that a command runs in."""

import subprocess


def git_commit() -> str:
    """The commit of this folder's repository, with ``+changes`` if tracked files differ; empty outside of one."""
    head = _git("rev-parse", "--verify", "--quiet", "HEAD")
    changed = head and _git("status", "--porcelain", "--untracked-files=no")
    return f"{head}+changes" if changed else head


def _git(*arguments: str) -> str:
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""
