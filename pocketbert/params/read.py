"""Reading params.yaml, and YAML files in general."""

from pathlib import Path

from pydantic import ValidationError

from pocketbert.errors import ParamsError
from pocketbert.params.mistakes import explain_mistakes
from pocketbert.params.pipeline import Params


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and validate params.yaml; raises ParamsError that names every mistake."""
    return parse_params(read_yaml(path), path)


def parse_params(raw: object, path: Path) -> Params:
    """Validate what was read from `path`; raises ParamsError."""
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise ParamsError(
            f"{path} is not valid: {explain_mistakes(error, Params, raw)}",
            f"Correct {path}; pocketbert/params/ lists every key.",
        ) from error


def read_yaml(path: Path) -> object:
    """Parse a YAML file (1.2 rules, as DVC does); raises ParamsError."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        with path.open(encoding="utf-8") as stream:
            document = YAML(typ="safe").load(stream)
    except FileNotFoundError as error:
        raise ParamsError(f"{path} does not exist here", "Run from the root of the project.") from error
    except (YAMLError, UnicodeDecodeError) as error:
        line = " ".join(str(error).split())
        raise ParamsError(f"{path} is not valid YAML: {line}", "Correct the named line.") from error
    return {} if document is None else document
