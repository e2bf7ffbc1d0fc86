"""What git knows of the folder that a command runs in."""

import subprocess
from pathlib import Path


def git_commit() -> str:
    """The commit of this folder's repository, with ``+changes`` if tracked files differ; empty outside of one."""
    head = git("rev-parse", "--verify", "--quiet", "HEAD")
    changed = head and git("status", "--porcelain", "--untracked-files=no")
    return f"{head}+changes" if changed else head


def holds(root: Path, path: str) -> bool:
    """Whether git has files of a path below a folder, or a ``.dvc`` file beside it."""
    if (root / f"{path.rstrip('/')}.dvc").is_file():
        return True
    return bool(git("-C", str(root), "ls-files", "--", path))


def git(*arguments: str) -> str:
    """What a git command prints; nothing where it fails, or where there is no git."""
    try:
        return subprocess.run(["git", *arguments], capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""
