"""The command ``new``: another pipeline of a project, a copy of the root's parameters on the same corpus."""

import re
from io import StringIO
from pathlib import Path

from ruamel.yaml import YAML

from selftrain.params.browse import BrowseConfig
from selftrain.plumbing.errors import UserError
from selftrain.plumbing.sections import MODULE_NAME
from selftrain.project import PARAMS, PIPELINES, Project, all_pipelines
from selftrain.start.init import stages_text


def new_pipeline(root: Path, name: str) -> Path:
    """Write ``pipelines/<name>`` with params.yaml, dvc.yaml and README.md; return the folder.

    Raises UserError for a name that a pipeline has already or that cannot name one.
    """
    if not re.fullmatch(MODULE_NAME, name):
        raise UserError(f"'{name}' cannot name a pipeline: use small letters, digits and _, a letter first")
    if name in all_pipelines(root):
        raise UserError(f"there is a pipeline '{name}' already; choose another name")
    main = Project.open(root)
    yaml = YAML()
    yaml.preserve_quotes, yaml.width = True, 10**6
    params = yaml.load((root / PARAMS).read_text(encoding="utf-8"))
    params["pipeline"] = name
    # The corpus, its images and others' cards are made by the pipeline that this one is a copy of.
    for stage in ("digits", "shift", "ingest", "card"):
        params["stages"][stage] = []
    for stage in ("results", "robustness_figures", "footprint", "replication"):
        if params["stages"][stage]:
            params["stages"][stage] = [name]
    dataset = main.section("browse", BrowseConfig).dataset
    params.setdefault("browse", {})["dataset"] = f"{dataset}_{name}"
    text = StringIO()
    yaml.dump(params, text)
    folder = root / PIPELINES / name
    folder.mkdir(parents=True)
    (folder / "params.yaml").write_text(text.getvalue(), encoding="utf-8")
    (folder / "dvc.yaml").write_text(stages_text(f"{PIPELINES}/{name}/params.yaml", "../.."), encoding="utf-8")
    (folder / "README.md").write_text(
        f"# {name.replace('_', ' ').capitalize()}\n\n"
        "What this pipeline is for, and what came out.\n\n"
        f"    dvc repro pipelines/{name}/dvc.yaml\n    selftrain summary --pipeline {name}\n",
        encoding="utf-8",
    )
    return folder
