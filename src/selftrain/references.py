"""What params.yaml names: other runs, models, pipelines and files. What is not there is said hours before its stage."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from selftrain.params.ingest import IngestConfig
from selftrain.params.predict import PredictConfig
from selftrain.params.robustness import RobustnessConfig
from selftrain.params.train import RUN_NAME
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.sections import did_you_mean
from selftrain.project import Project, all_pipelines
from selftrain.workspace import made_by_stages

BEST = "best"


def check_references(project: Project) -> list[str]:
    """Raises UserError for the first name of a model or a pipeline that means nothing; returns what should be known
    besides.
    """
    _check_tested(project)
    _check_pipelines(project)
    return list(_unread(project))


def check_files(project: Project) -> None:
    """Raises UserError for the first file or folder that is not there, and that no stage makes."""
    for parameter, path in _files(project):
        if not path.exists():
            raise UserError(f"{project.params_path}: {parameter}: there is no {path}")


def _check_tested(project: Project) -> None:
    """Models under ``tested``, and the one that errors are relative to."""
    where, tested = f"{project.params_path}: tested", project.config.tested
    for name, model in tested.items():
        if not RUN_NAME.fullmatch(name):
            raise UserError(f"{where}: {name!r} cannot name a model; use letters, digits and _, a letter first")
        if not (project.root / "models" / model).exists() and not _is_made(project, model):
            known = [f"{other.name}/{run}" for other in _pipelines(project) for run in (*other.runs, BEST)]
            raise UserError(f"{where}.{name}: there is no model '{model}'; {did_you_mean(model, known)}")
    reference = project.section("robustness", RobustnessConfig).reference
    if tested and reference not in (*tested, "alexnet"):
        hint = did_you_mean(reference, [*tested, "alexnet"])
        raise UserError(
            f"{project.params_path}: robustness.reference: there is no '{reference}' under `tested`; {hint}"
        )


def _pipelines(project: Project) -> list[Project]:
    return [Project.open(project.root, name) for name in all_pipelines(project.root)]


def _is_made(project: Project, model: str) -> bool:
    """Whether a stage makes a folder under ``models``: a run's, or a pipeline's best."""
    parts = PurePosixPath(model).parts
    by_name = {other.name: other for other in _pipelines(project)}
    return len(parts) == 2 and parts[0] in by_name and parts[1] in (*by_name[parts[0]].runs, BEST)


def _check_pipelines(project: Project) -> None:
    known = all_pipelines(project.root)
    for name in project.config.stages.card:
        if name not in known:
            hint = did_you_mean(name, known)
            raise UserError(f"{project.params_path}: stages.card: there is no pipeline '{name}'; {hint}")


def _unread(project: Project) -> Iterator[str]:
    """A round's own parameters that its policy does not read. Raises UserError where what it reads is not written."""
    from selftrain.selection.policy import Policy, find_policy

    embeddings = project.section("predict", PredictConfig).embeddings
    for run in project.rounds:
        config, where = project.select_config(run.name), f"{project.params_path}: rounds.{run.name}.select"
        own = (project.values["rounds"][run.name] or {}).get("select") or {}
        policy = find_policy(config.policy, f"{where}.policy")
        for name in Policy.parameters:
            if name in own and name not in policy.parameters:
                reads = f", but `{'` and `'.join(policy.parameters)}`" if policy.parameters else ""
                yield f"note: {where}.{name}: the policy '{config.policy}' does not read it{reads}"
        if not embeddings and (config.gate is not None or policy.uses_embeddings):
            name = "gate" if config.gate is not None else "policy"
            raise UserError(f"{where}.{name}: it needs embeddings; set `predict.embeddings: true`")


def _files(project: Project) -> Iterator[tuple[str, Path]]:
    """(parameter, path) of what is read and no stage makes."""
    robustness, ingest = project.section("robustness", RobustnessConfig), project.values.get("ingest")
    if project.config.tested:
        for name, folder in robustness.folders.items():
            yield f"robustness.folders.{name}", project.root / folder
        if robustness.corruptions_folder is not None:
            yield "robustness.corruptions_folder", project.root / robustness.corruptions_folder
    if ingest and project.config.stages.ingest and ingest.get("root") not in made_by_stages(project):
        config = project.section("ingest", IngestConfig)
        for parameter in ("truth", "multi_labels"):
            if (file := getattr(config, parameter)) is not None:
                yield f"ingest.{parameter}", project.root / config.root / file
    for run in project.runs.values():
        if run.section in ("teachers", "ensembles"):
            for model in project.adopted_config(run.name).models:
                inside = model.removeprefix("models/")
                if inside == model or not _is_made(project, inside):
                    yield f"{run.section}.{run.name}.models", project.root / model
