"""Settings: the only module that reads the environment. Every other room takes plain arguments."""

from __future__ import annotations

import difflib
import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from service.bucket import ADDRESS
from service.errors import SettingsError, shorten

if TYPE_CHECKING:
    from service.runtimes import Policy

PREFIX = "ANYPORT_"
DEFAULT_PORT = 8000
"""Where the service listens when no platform gives a port; Elastic Beanstalk and Azure expect it there too."""
OWN_MODELS = Path(__file__).resolve().parent.parent / "models"
MOUNTS = (Path("/opt/ml/model"), Path("/opt/ds/model/deployed_model"), Path("/eas/workspace/model"))
"""Where SageMaker, OCI Data Science and Alibaba EAS put the artefact that they were given."""
MOST_WRAPPERS = 3
BATCH_ROWS, BATCH_CELLS = 1_000_000, 16_000_000
ROUTE = r"^/[!-~]*$"
OWN_VARIABLES = {"vertex": ("AIP_PREDICT_ROUTE", "AIP_MODE"), "oci": ("MODEL_DEPLOYMENT_OCID",)}
"""Which platforms tell themselves by a variable that they alone set, any of these."""
COMPUTE_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


class Settings(BaseModel):
    """What the operator decides. Each field is read from the variable of its name in capitals, after `ANYPORT_`."""

    model_config = ConfigDict(validate_by_name=True, extra="forbid", frozen=True, use_attribute_docstrings=True)

    models_uri: str | None = Field(
        default=None, pattern=ADDRESS, validation_alias=AliasChoices("ANYPORT_MODELS_URI", "AIP_STORAGE_URI")
    )
    """Address of a bucket, or of a folder in one, from which packages are fetched when gunicorn starts. Vertex AI sets
    the second name where a model has artifacts."""

    models_sha256: tuple[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")], ...] = ()
    """SHA-256 sums, separated by commas, of the `manifest.json` of each package that may be fetched. By default any:
    whoever may write to the bucket is trusted then."""

    cache_dir: Path = Path("~/.cache/anyport")
    """Where `flask rehearse` keeps virtual environments, `flask bundle` what it writes, and the service what it has
    fetched."""

    models_dir: Path = Field(
        default_factory=lambda said: _found_models(said["models_uri"], said["cache_dir"]),
        validation_alias=AliasChoices("ANYPORT_MODELS_DIR", "AZUREML_MODEL_DIR"),
    )
    """Folder of the model packages, or one that holds that folder alone. By default one in ANYPORT_CACHE_DIR where
    models are fetched; else where SageMaker, OCI and EAS mount what they were given, if packages are there; else
    `models/`."""

    serve: Literal["all", "active"] = "all"
    """Which versions of each model are loaded: all of them, or only the active one."""

    max_body_bytes: int = Field(default=4 * 2**20, ge=1024, le=2**30)
    """Largest request body in bytes, also after decompression."""

    max_rows: int = Field(
        default_factory=lambda: BATCH_ROWS if os.environ.get("SAGEMAKER_BATCH") else 10_000, ge=1, le=10_000_000
    )
    """Largest number of rows in one request. By default 10,000; in a batch transform of SageMaker 1,000,000, because it
    fills whole bodies with rows."""

    max_cells: int = Field(
        default_factory=lambda: BATCH_CELLS if os.environ.get("SAGEMAKER_BATCH") else 1_000_000, ge=1, le=1_000_000_000
    )
    """Largest number of values in one request: of a model with many features it takes fewer rows. By default 1,000,000;
    in a batch transform 16,000,000."""

    gzip_requests: bool = False
    """Whether bodies with `Content-Encoding: gzip` are accepted."""

    allow_pickle: bool = True
    """Whether models in joblib and pickle files, MLflow folders, and scripts may be loaded: loading one runs code."""

    skops_trusted: tuple[str, ...] = ()
    """Types, separated by commas, that a skops file may hold beyond those that skops itself trusts."""

    version_skew: Literal["refuse", "warn"] = "refuse"
    """What happens to a model that was made with other versions of its libraries."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is logged."""

    threads: int = Field(default=4, ge=1, le=64)
    """Threads of each gunicorn worker."""

    queue: int = Field(default=64, ge=0, le=10_000)
    """Requests of each worker that may wait for a thread; more are refused with 503."""

    request_timeout_s: float = Field(default=25, gt=0, le=86_400)
    """How long one prediction may take, in seconds. Heroku's router gives up after 30."""

    lame_duck_s: float = Field(default=1, ge=0, le=60)
    """How long the service goes on accepting after SIGTERM while it says that it is not ready, in seconds."""

    memory_mib: int | None = Field(
        default=None, ge=64, validation_alias=AliasChoices("ANYPORT_MEMORY_MIB", "GAE_MEMORY_MB")
    )
    """Memory that the service may use, in MiB. By default the container's own limit."""

    stop_grace_s: int = Field(
        default_factory=lambda: 5 if "WEBSITE_SITE_NAME" in os.environ else 30,
        ge=1,
        le=3600,
        validation_alias=AliasChoices("ANYPORT_STOP_GRACE_S", "WEBSITES_CONTAINER_STOP_TIME_LIMIT"),
    )
    """How long the platform waits between SIGTERM and SIGKILL, in seconds; the service ends before. By default 30, as
    Heroku and Render wait; on Azure 5, unless the second name tells Azure itself to wait longer."""

    client_hops: int = Field(default=0, ge=0, le=8)
    """Which item of X-Forwarded-For, from the right, is the client's address: as many as there are trusted proxies.
    With 0 the header is not believed."""

    host: str = Field(default="0.0.0.0", pattern=r"^([0-9.]{7,15}|\[[0-9a-fA-F:]{2,39}\])$")
    """Address to listen on where a port is given. `[::]` is IPv6 and IPv4, which Heroku's Fir wants."""

    port: int | None = Field(
        default=None, ge=1, le=65535, validation_alias=AliasChoices("AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT", "PORT")
    )
    """Port to listen on, at ANYPORT_HOST. The platforms set it; without it the service listens on 127.0.0.1:8000."""

    protocol: Literal["native", "mlflow", "sagemaker", "vertex", "azureml", "oci", "eas"] = Field(
        default_factory=lambda: _whose_platform()
    )
    """Whose words the paths speak that several clouds share, such as `/predict` and `/`. By default Vertex AI and OCI
    are known by their own variables, and everywhere else it is the native protocol."""

    predict_route: str | None = Field(
        default=None,
        pattern=ROUTE,
        validation_alias=AliasChoices("AIP_PREDICT_ROUTE", "MODEL_DEPLOY_PREDICT_ENDPOINT"),
    )
    """Path at which the platform asks for predictions; a path of another protocol stays that protocol's."""

    health_route: str | None = Field(
        default=None,
        pattern=ROUTE,
        validation_alias=AliasChoices("AIP_HEALTH_ROUTE", "MODEL_DEPLOY_HEALTH_ENDPOINT"),
    )
    """Path at which the platform asks for health."""

    deployed_model: str | None = Field(default=None, validation_alias=AliasChoices("AIP_DEPLOYED_MODEL_ID"))
    """What Vertex AI calls the model; its answers tell it."""

    eas_token: SecretStr | None = None
    """The token that requests to the paths of Alibaba EAS must carry, or be signed with; EAS's own gateway checks it
    before."""

    web_concurrency: int | None = Field(default=None, ge=1, le=64, validation_alias=AliasChoices("WEB_CONCURRENCY"))
    """Number of gunicorn workers. By default as many as processors and memory allow."""

    web_concurrency_set_by: str | None = Field(default=None, validation_alias=AliasChoices("WEB_CONCURRENCY_SET_BY"))
    """Who set WEB_CONCURRENCY: a guess by Heroku's buildpack (`heroku/python`) knows nothing of the model and is passed
    over."""

    verify_key: SecretStr | None = None
    """The key that `flask verify` sends as a bearer token."""

    @field_validator("models_dir")
    @classmethod
    def _unwrap(cls, value: Path) -> Path:
        return _unwrapped(value)

    @field_validator("skops_trusted", "models_sha256", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return tuple(filter(None, map(str.strip, value.split(",")))) if isinstance(value, str) else value

    @property
    def policy(self) -> Policy:
        """What may be loaded, as the runtimes ask it."""
        from service.runtimes import Policy  # imports numpy, which must come after limit_compute_threads()

        return Policy(self.allow_pickle, frozenset(self.skops_trusted), self.version_skew)

    @property
    def bind(self) -> str:
        """The address to listen on. A platform that gives a port routes to it from outside; else this is a laptop."""
        return f"{self.host}:{self.port}" if self.port else f"127.0.0.1:{DEFAULT_PORT}"

    @property
    def graceful_timeout_s(self) -> int:
        """How long gunicorn waits for its workers to end: so that it has ended itself when the platform kills."""
        return max(self.stop_grace_s - 5, 2)

    @property
    def workers(self) -> int | None:
        """The number of workers that the operator chose, None where nobody did."""
        return None if self.web_concurrency_set_by == "heroku/python" else self.web_concurrency


def read_settings() -> Settings:
    """Read the environment; a variable that is set to nothing counts as unset.

    Raises:
        SettingsError: If a variable holds an unusable value, or there is no such variable; it names the variable.
    """
    _check_names()
    found = {field: os.environ[name] for field in Settings.model_fields if (name := _strongest(field))}
    try:
        return Settings.model_validate(found)
    except ValidationError as error:
        faults = [fault for fault in error.errors(include_url=False) if fault["type"] != "default_factory_not_called"]
        raise SettingsError("; ".join(map(_complaint, faults))) from error


def variables(field: str) -> tuple[str, ...]:
    """Return the environment variables that a field is read from, the strongest first."""
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return tuple(str(choice) for choice in alias.choices)
    return (PREFIX + field.upper(),)


def limit_compute_threads() -> None:
    """Give OpenMP and BLAS one thread each, unless the operator said otherwise. Call it before numpy is imported.

    The workers share the processors; thread pools of their own would fight over them, and cost memory.
    """
    for name in COMPUTE_THREADS:
        os.environ.setdefault(name, "1")


def _found_models(address: str | None, cache_dir: Path) -> Path:
    """Return the folder of the models where nobody names one. Each address has its own: none answers for another."""
    if address is None:
        return next(filter(_holds_packages, map(_unwrapped, MOUNTS)), OWN_MODELS)
    try:
        return cache_dir.expanduser() / "models" / hashlib.sha256(address.encode()).hexdigest()[:16]
    except RuntimeError as error:  # nobody knows this user's home
        raise SettingsError("there is no home folder to fetch models into; set ANYPORT_CACHE_DIR") from error


def _unwrapped(folder: Path) -> Path:
    """Return the folder of the packages: this one, or a lone one in it, for an archive of a folder adds a level."""
    found = folder
    for _ in range(MOST_WRAPPERS):
        inner = [path for path in found.glob("[!.]*") if path.is_dir()]
        if _holds_packages(found) or len(inner) != 1:
            break
        found = inner[0]
    return found if _holds_packages(found) else folder


def _holds_packages(folder: Path) -> bool:
    return any(folder.glob("*/*/manifest.json"))


def _whose_platform() -> Any:
    return next((name for name, own in OWN_VARIABLES.items() if any(map(os.environ.get, own))), "native")


def _check_names() -> None:
    known = [name for field in Settings.model_fields for name in variables(field)]
    for name in os.environ:
        if name.upper().startswith(PREFIX) and name not in known:
            plain = name.upper().removeprefix(PREFIX)
            ours = {variable.removeprefix(PREFIX): variable for variable in known}
            close = [ours[match] for match in difflib.get_close_matches(plain, ours, 1, cutoff=0.7)]
            hint = f"; did you mean {close[0]}?" if close else "."
            raise SettingsError(f"{shorten(name)} is not a setting{hint} README.md lists them under Settings")


def _strongest(field: str) -> str | None:
    """Return the variable that a field is read from, None if none is set."""
    return next((name for name in variables(field) if os.environ.get(name)), None)


def _complaint(fault: Any) -> str:
    where = fault["loc"][0]  # the field, or one of its variables
    field = next(field for field in Settings.model_fields if where in (field, *variables(field)))
    return f"{_strongest(field)}={shorten(repr(fault['input']), 80)} is not usable: {fault['msg']}"
