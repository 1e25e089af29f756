"""Where the compiled feature spec lies, for the processes that must not import Feast."""

from pathlib import Path

from pydantic import ValidationError

from features.spec import FeatureSpec
from runtime.errors import GraftError
from runtime.folder import replacing


def spec_path(repo: Path) -> Path:
    """The spec's file in a Feast repository, beside the registry."""
    return repo / "data" / "feature_spec.json"


def save_spec(spec: FeatureSpec, repo: Path) -> None:
    """Replace the repository's spec atomically."""
    with replacing(spec_path(repo)) as file:
        file.write(spec.model_dump_json(indent=1).encode() + b"\n")


def load_spec(repo: Path) -> FeatureSpec:
    """The spec that `graft features apply` saved; GraftError when it is missing or not of this version."""
    path = spec_path(repo)
    try:
        return FeatureSpec.model_validate_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise GraftError(f"{path}: no feature spec; make it with 'graft features apply'") from None
    except ValidationError as error:
        raise GraftError(
            f"{path}: not a feature spec of this version ({error.error_count()} faults); "
            "make it anew with 'graft features apply'"
        ) from None
