"""The commands that look at a workspace: at its parameters before hours are spent, and at its contents."""

from pathlib import Path
from typing import Annotated

import typer

from selftrain.cli.app import Pipeline, app
from selftrain.plumbing.errors import UserError


@app.command()
def check(
    pipeline: Pipeline = None,
    params: Annotated[Path | None, typer.Option(help="A parameters file, instead of a pipeline's.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run every stage with tiny networks on made-up images, in a minute.")
    ] = False,
) -> None:
    """Check every section of the parameters and the corrections, and mend DVC's lock file if a killed DVC broke it."""
    from selftrain.check import check_project
    from selftrain.plumbing.dvc_lock import mend_dvc_lock
    from selftrain.plumbing.sections import load_params
    from selftrain.project import Project

    project = Project.open(pipeline=pipeline) if params is None else Project(Path(), params, load_params(params))
    check_project(project)
    mend_dvc_lock()
    if dry_run:
        from selftrain.rehearsal.rehearse import rehearse_project

        commands = rehearse_project(project, lambda words: app(words, standalone_mode=False))
        print(f"{project.params_path}: {len(commands)} stages ran with tiny networks on made-up images")
    print(f"{project.params_path}: fine")


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def repro(context: typer.Context) -> None:
    """`dvc repro` with its options, for jobs and containers: by SIGTERM the stage saves and ends, then DVC."""
    from selftrain.plumbing.reproduce import reproduce

    raise SystemExit(reproduce(context.args))


@app.command()
def follow(pipeline: Pipeline = None) -> None:
    """On another machine with this folder: take part in what `dvc repro` starts there (`engine: torchrun`)."""
    from selftrain.project import Project
    from selftrain.training.launch import follow as run_follow

    hardware = Project.open(pipeline=pipeline).hardware
    if hardware.rendezvous is None:
        raise UserError("hardware.rendezvous: missing; name the machine that runs `dvc repro`, and set `nodes`")
    run_follow(hardware)


@app.command()
def doctor(
    pipeline: Pipeline = None,
    fix: Annotated[bool, typer.Option("--fix", help="Do what is safe.")] = False,
) -> None:
    """Look at the workspace by content: corpus, tables, models, checkpoints, leftovers; say what to do."""
    from selftrain.doctor import examine, versions
    from selftrain.plumbing.dvc_state import would_run
    from selftrain.project import Project

    print(versions())
    left = 0
    for trouble in examine(Project.open(pipeline=pipeline)):
        if fix and trouble.fix is not None:
            trouble.fix()
            print(f"mended: {trouble.what}")
        else:
            left += 1
            print(f"{trouble.what}\n    {trouble.remedy}" + ("  (--fix does it)" if trouble.fix is not None else ""))
    print("nothing is wrong" if not left else f"{left} troubles")
    if any(Path().glob("dvc.lock")) or any(Path().glob("pipelines/*/dvc.lock")):
        for stage, reasons in would_run().items():
            print(f"`dvc repro` would run {stage}: {', '.join(reasons)}")
    else:
        print("`dvc repro` would run every stage: nothing was made yet")
    raise SystemExit(min(left, 1))
