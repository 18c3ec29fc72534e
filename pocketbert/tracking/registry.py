"""Weights as registered models: one registered model an artifact name, one version an MD5 of the model file."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch

from pocketbert.artifacts import Artifact
from pocketbert.params import PublishParams
from pocketbert.tracking.store import Store

MD5_TAG = "pocketbert.md5"
# Of the model version that the state published last would ship.
CHOSEN_ALIAS = "chosen"


@dataclass(frozen=True)
class RegisteredVersion:
    """Where an artifact's weights are in the registry."""

    artifact: str
    model: str
    version: str
    md5: str

    @property
    def uri(self) -> str:
        """MLflow's name for it."""
        return f"models:/{self.model}/{self.version}"


def to_register(params: PublishParams, artifacts: list[Artifact], chosen: str | None = None) -> Iterator[Artifact]:
    """The artifacts whose name matches one of the patterns of `publish.register_artifacts`, and the chosen one."""
    for artifact in artifacts:
        if artifact.name == chosen or any(fnmatch(artifact.name, pattern) for pattern in params.register_artifacts):
            yield artifact


def register(
    store: Store, run_id: str, params: PublishParams, artifact: Artifact, tags: Mapping[str, str]
) -> tuple[RegisteredVersion, bool]:
    """The version that holds these weights and whether it is new; the folder is uploaded to the run if it is."""
    from mlflow.exceptions import MlflowException

    model, md5 = f"{params.registered_model}-{artifact.name}", artifact.md5()
    try:
        store.client.create_registered_model(model, description=f"pocketbert artifact {artifact.name}")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    same = store.client.search_model_versions(f"name = '{model}' and tags.`{MD5_TAG}` = '{md5}'")
    if same:
        return RegisteredVersion(artifact.name, model, str(min(int(v.version) for v in same)), md5), False
    folder = f"models/{artifact.name}"
    store.client.log_artifacts(run_id, str(artifact.folder), folder)
    source = f"{store.client.get_run(run_id).info.artifact_uri}/{folder}"
    version = store.client.create_model_version(model, source, run_id, tags={**tags, MD5_TAG: md5})
    return RegisteredVersion(artifact.name, model, str(version.version), md5), True


def mark_chosen(store: Store, params: PublishParams, versions: Iterable[RegisteredVersion], chosen: str | None) -> None:
    """Give the chosen artifact's version, and no other one, the alias `chosen`; `chosen` None: no artifact was."""
    wanted = {version.model: version.version for version in versions if version.artifact == chosen}
    for model in store.client.search_registered_models(f"name LIKE '{params.registered_model}-%'", max_results=1000):
        present = model.aliases.get(CHOSEN_ALIAS)
        if present is not None and model.name not in wanted:
            store.client.delete_registered_model_alias(model.name, CHOSEN_ALIAS)
        elif model.name in wanted and str(present) != wanted[model.name]:
            store.client.set_registered_model_alias(model.name, CHOSEN_ALIAS, wanted[model.name])
