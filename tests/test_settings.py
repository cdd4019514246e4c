"""Settings: every variable is read, a mistake names itself, and the platforms' own variables have their order."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from service import settings
from service.errors import SettingsError
from service.settings import (
    COMPUTE_THREADS,
    OWN_VARIABLES,
    PREFIX,
    Settings,
    limit_compute_threads,
    read_settings,
    variables,
)

READ = [
    ("ANYPORT_MODELS_URI", "s3://bucket/models", "models_uri", "s3://bucket/models"),
    ("AIP_STORAGE_URI", "gs://bucket/models/", "models_uri", "gs://bucket/models/"),
    ("ANYPORT_MODELS_SHA256", f"{'0' * 64}, {'a' * 64}", "models_sha256", ("0" * 64, "a" * 64)),
    ("ANYPORT_CACHE_DIR", "/srv/cache", "cache_dir", Path("/srv/cache")),
    ("ANYPORT_MODELS_DIR", "/srv/models", "models_dir", Path("/srv/models")),
    ("AZUREML_MODEL_DIR", "/var/models", "models_dir", Path("/var/models")),
    ("ANYPORT_SERVE", "active", "serve", "active"),
    ("ANYPORT_MAX_BODY_BYTES", "2048", "max_body_bytes", 2048),
    ("ANYPORT_MAX_ROWS", "7", "max_rows", 7),
    ("ANYPORT_MAX_CELLS", "70", "max_cells", 70),
    ("ANYPORT_GZIP_REQUESTS", "true", "gzip_requests", True),
    ("ANYPORT_ALLOW_PICKLE", "0", "allow_pickle", False),
    ("ANYPORT_SKOPS_TRUSTED", "a.B, c.D,,", "skops_trusted", ("a.B", "c.D")),
    ("ANYPORT_VERSION_SKEW", "warn", "version_skew", "warn"),
    ("ANYPORT_LOG_LEVEL", "debug", "log_level", "debug"),
    ("ANYPORT_THREADS", "9", "threads", 9),
    ("ANYPORT_QUEUE", "0", "queue", 0),
    ("ANYPORT_REQUEST_TIMEOUT_S", "2.5", "request_timeout_s", 2.5),
    ("ANYPORT_LAME_DUCK_S", "0", "lame_duck_s", 0),
    ("ANYPORT_MEMORY_MIB", "512", "memory_mib", 512),
    ("GAE_MEMORY_MB", "384", "memory_mib", 384),
    ("ANYPORT_STOP_GRACE_S", "90", "stop_grace_s", 90),
    ("WEBSITES_CONTAINER_STOP_TIME_LIMIT", "120", "stop_grace_s", 120),
    ("ANYPORT_CLIENT_HOPS", "2", "client_hops", 2),
    ("ANYPORT_HOST", "[::]", "host", "[::]"),
    ("AIP_HTTP_PORT", "8081", "port", 8081),
    ("SAGEMAKER_BIND_TO_PORT", "8082", "port", 8082),
    ("PORT", "8083", "port", 8083),
    ("ANYPORT_PROTOCOL", "eas", "protocol", "eas"),
    ("AIP_PREDICT_ROUTE", "/predict", "predict_route", "/predict"),
    ("MODEL_DEPLOY_PREDICT_ENDPOINT", "/v2/models/it/infer", "predict_route", "/v2/models/it/infer"),
    ("AIP_HEALTH_ROUTE", "/v1/endpoints/1", "health_route", "/v1/endpoints/1"),
    ("MODEL_DEPLOY_HEALTH_ENDPOINT", "/", "health_route", "/"),
    ("AIP_DEPLOYED_MODEL_ID", "77", "deployed_model", "77"),
    ("ANYPORT_EAS_TOKEN", "t", "eas_token", SecretStr("t")),
    ("WEB_CONCURRENCY", "3", "web_concurrency", 3),
    ("WEB_CONCURRENCY_SET_BY", "someone", "web_concurrency_set_by", "someone"),
    ("ANYPORT_VERIFY_KEY", "k", "verify_key", SecretStr("k")),
]
OWN = {variable: protocol for protocol, own in OWN_VARIABLES.items() for variable in own}
"""The protocol of each variable that one platform alone sets."""
MISTYPED = [
    ("ANYPORT_MODELS_URI", "http://host/models"),
    ("AIP_STORAGE_URI", "gs://bucket/models?key=k"),
    ("ANYPORT_MODELS_SHA256", "0" * 63),
    ("ANYPORT_SERVE", "everything"),
    ("ANYPORT_MAX_BODY_BYTES", "10MB"),
    ("ANYPORT_MAX_BODY_BYTES", "1023"),
    ("ANYPORT_MAX_ROWS", "0"),
    ("ANYPORT_MAX_ROWS", "1e3"),
    ("ANYPORT_MAX_ROWS", "-5"),
    ("ANYPORT_GZIP_REQUESTS", "maybe"),
    ("ANYPORT_ALLOW_PICKLE", "2"),
    ("ANYPORT_VERSION_SKEW", "ignore"),
    ("ANYPORT_LOG_LEVEL", "trace"),
    ("ANYPORT_THREADS", "65"),
    ("ANYPORT_MEMORY_MIB", "63"),
    ("GAE_MEMORY_MB", "lots"),
    ("ANYPORT_STOP_GRACE_S", "0"),
    ("WEBSITES_CONTAINER_STOP_TIME_LIMIT", "a minute"),
    ("ANYPORT_CLIENT_HOPS", "-1"),
    ("ANYPORT_HOST", "0.0.0.0:80"),
    ("ANYPORT_HOST", "::"),
    ("AIP_HTTP_PORT", "http"),
    ("SAGEMAKER_BIND_TO_PORT", "0"),
    ("PORT", "65536"),
    ("ANYPORT_PROTOCOL", "watson"),
    ("AIP_PREDICT_ROUTE", "predict"),
    ("MODEL_DEPLOY_PREDICT_ENDPOINT", "/a b"),
    ("AIP_HEALTH_ROUTE", "health"),
    ("MODEL_DEPLOY_HEALTH_ENDPOINT", "/\n"),
    ("WEB_CONCURRENCY", "auto"),
]


@pytest.fixture(autouse=True)
def _without_platform_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep what a platform may have set out of these tests."""
    for variable in [*(variable for variable, *_ in READ), *OWN, "SAGEMAKER_BATCH"]:
        monkeypatch.delenv(variable, raising=False)


def refusal() -> str:
    """What is said about the environment as it is."""
    with pytest.raises(SettingsError) as caught:
        read_settings()
    return caught.value.detail


@pytest.mark.parametrize(("variable", "text", "field", "value"), READ)
def test_setting_is_read(monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str, value: Any) -> None:
    """Each variable sets its field and no other; but one of a platform's own tells its protocol, and the address of
    models a folder for them."""
    default = read_settings().model_dump()
    monkeypatch.setenv(variable, text)
    assert getattr(read_settings(), field) == value
    assert {name for name, found in read_settings().model_dump().items() if found != default[name]} <= {
        field,
        *(["protocol"] if variable in OWN else []),
        *(["models_dir"] if field == "models_uri" else []),
    }


def test_batch_transform_has_more_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """SageMaker's batch transform fills bodies with rows, and their limit there is what a body can hold."""
    monkeypatch.setenv("SAGEMAKER_BATCH", "true")
    assert (read_settings().max_rows, read_settings().max_cells) == (1_000_000, 16_000_000)
    monkeypatch.setenv("ANYPORT_MAX_ROWS", "5")
    assert read_settings().max_rows == 5


@pytest.mark.parametrize(("variable", "protocol"), OWN.items())
def test_platform_tells_its_protocol(monkeypatch: pytest.MonkeyPatch, protocol: str, variable: str) -> None:
    """A variable that only one platform sets makes the shared paths speak its protocol, unless the operator chose."""
    assert read_settings().protocol == "native"
    monkeypatch.setenv(variable, "/predict")
    assert read_settings().protocol == protocol
    monkeypatch.setenv("ANYPORT_PROTOCOL", "native")
    assert read_settings().protocol == "native"


def test_every_setting_is_tested() -> None:
    """The table above holds every variable of every field, in the order of their strength."""
    assert [variable for variable, *_ in READ] == [name for field in Settings.model_fields for name in variables(field)]


@pytest.mark.parametrize("wrappers", [(), ("model",), ("archive", "models")])
def test_artefact_is_found_where_it_is_mounted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrappers: tuple[str, ...]
) -> None:
    """Packages that a cloud has mounted are served, also where its archive added folders around them."""
    first, second = tmp_path / "first", tmp_path / "second"
    monkeypatch.setattr(settings, "MOUNTS", (first, second))
    assert read_settings().models_dir == settings.OWN_MODELS
    first.mkdir()
    package = second.joinpath(*wrappers, "penguins", "1")
    package.mkdir(parents=True)
    assert read_settings().models_dir == settings.OWN_MODELS
    (package / "manifest.json").touch()
    assert read_settings().models_dir == second.joinpath(*wrappers)
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(second))
    assert read_settings().models_dir == second.joinpath(*wrappers)


def test_each_address_has_a_folder_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What was fetched from one address never answers for another; a folder that is set is taken for all."""
    mounted = tmp_path / "mounted"
    shutil.copytree(settings.OWN_MODELS, mounted)
    monkeypatch.setattr(settings, "MOUNTS", (mounted,))
    monkeypatch.setenv("ANYPORT_CACHE_DIR", str(tmp_path / "cache"))
    folders = set()
    for address in ("gs://bucket/a", "gs://bucket/b", "s3://bucket/a"):
        monkeypatch.setenv("AIP_STORAGE_URI", address)
        folders.add(read_settings().models_dir)
    assert len(folders) == 3 and {folder.parent for folder in folders} == {tmp_path / "cache" / "models"}
    monkeypatch.setenv("AIP_STORAGE_URI", "")
    assert read_settings().models_dir == mounted
    monkeypatch.setenv("AIP_STORAGE_URI", "gs://bucket/a")
    monkeypatch.setenv("ANYPORT_MODELS_DIR", str(tmp_path / "chosen"))
    assert read_settings().models_dir == tmp_path / "chosen"


def test_home_of_fetched_models_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home is told which setting helps."""

    def expanduser(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", expanduser)
    monkeypatch.setenv("AIP_STORAGE_URI", "gs://bucket/a")
    assert "set ANYPORT_CACHE_DIR" in refusal()


def test_mistyped_address_is_named_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows from a value that cannot be used is not complained of too."""
    monkeypatch.setenv("ANYPORT_MODELS_URI", "ftp://host/models")
    assert refusal().startswith("ANYPORT_MODELS_URI='ftp://host/models' is not usable: ") and ";" not in refusal()


def test_folder_without_packages_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A folder that holds no package yet is where packages will come, whatever else is in it."""
    (tmp_path / "models" / "penguins" / "half-made").mkdir(parents=True)
    monkeypatch.setenv("ANYPORT_MODELS_DIR", str(tmp_path / "models"))
    assert read_settings().models_dir == tmp_path / "models"


def test_every_setting_says_what_it_is() -> None:
    """Every field has a description, which the documentation is made of."""
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []


def test_settings_have_defaults() -> None:
    """An empty environment is enough: this folder's models, 10 MiB, 10,000 rows, this machine alone."""
    settings = read_settings()
    assert settings.models_dir == Path(__file__).resolve().parent.parent / "models"
    assert (settings.max_body_bytes, settings.max_rows, settings.gzip_requests) == (4 * 2**20, 10_000, False)
    assert (settings.bind, settings.workers, settings.memory_mib) == ("127.0.0.1:8000", None, None)


def test_settings_are_frozen() -> None:
    """Settings cannot be changed once they are read."""
    with pytest.raises(ValidationError):
        read_settings().max_rows = 1


@pytest.mark.parametrize(("variable", "text"), MISTYPED)
def test_mistyped_value_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, text: str) -> None:
    """An unusable value is refused with the variable that was set, and the value that was found."""
    monkeypatch.setenv(variable, text)
    assert refusal().startswith(f"{variable}={text!r} is not usable: ")


def test_every_mistyped_value_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several mistakes are told at once."""
    monkeypatch.setenv("ANYPORT_MAX_ROWS", "0")
    monkeypatch.setenv("ANYPORT_THREADS", "x")
    assert "ANYPORT_MAX_ROWS='0'" in refusal() and "ANYPORT_THREADS='x'" in refusal()


def test_mistyped_value_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long value is repeated in part only."""
    monkeypatch.setenv("ANYPORT_MAX_ROWS", "x" * 10_000)
    assert len(refusal()) < 250


@pytest.mark.parametrize(("variable", "text", "field", "value"), READ)
def test_empty_variable_counts_as_unset(
    monkeypatch: pytest.MonkeyPatch, variable: str, text: str, field: str, value: Any
) -> None:
    """A variable that is set to nothing leaves the default."""
    default = getattr(read_settings(), field)
    monkeypatch.setenv(variable, "")
    assert getattr(read_settings(), field) == default


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("ANYPORT_MAX_ROW", "ANYPORT_MAX_ROWS"),
        ("ANYPORT_MODEL_DIR", "ANYPORT_MODELS_DIR"),
        ("ANYPORT_THREAD", "ANYPORT_THREADS"),
        ("ANYPORT_max_rows", "ANYPORT_MAX_ROWS"),
        ("ANYPORT_PORT", "PORT"),
        ("ANYPORT_WEB_CONCURRENCY", "WEB_CONCURRENCY"),
    ],
)
def test_unknown_variable_is_refused_with_a_hint(monkeypatch: pytest.MonkeyPatch, variable: str, meant: str) -> None:
    """A variable with our prefix that is no setting is refused, with the one that was probably meant."""
    monkeypatch.setenv(variable, "1")
    assert refusal().startswith(f"{variable} is not a setting; did you mean {meant}?")


@pytest.mark.parametrize("variable", ["ANYPORT_ZZZ", "ANYPORT_", "ANYPORT_" + "Q" * 500])
def test_unknown_variable_like_no_other_gets_no_hint(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """A variable that is like no setting is refused without a guess, in whole sentences."""
    monkeypatch.setenv(variable, "1")
    assert "did you mean" not in refusal()
    assert "is not a setting README" not in refusal()
    assert len(refusal()) < 200


@pytest.mark.parametrize("variable", ["anyport_max_rows", "Anyport_Max_Rows", "anyport_max_row"])
def test_variable_in_other_letters_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """A variable of ours in small letters is refused like any other mistake, neither read nor passed over."""
    monkeypatch.setenv(variable, "1")
    assert "ANYPORT_MAX_ROWS" in refusal()


@pytest.mark.parametrize("variable", ["ANYPORTAL", "MY_ANYPORT_MAX_ROWS", "MAX_ROWS"])
def test_variable_of_others_is_left_alone(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """A variable without our prefix is no concern of ours."""
    monkeypatch.setenv(variable, "x")
    assert read_settings().max_rows == 10_000


@pytest.mark.parametrize(
    ("given", "port"),
    [
        ({"AIP_HTTP_PORT": "1001", "SAGEMAKER_BIND_TO_PORT": "1002", "PORT": "1003"}, 1001),
        ({"SAGEMAKER_BIND_TO_PORT": "1002", "PORT": "1003"}, 1002),
        ({"AIP_HTTP_PORT": "1001", "PORT": "1003"}, 1001),
        ({"AIP_HTTP_PORT": "", "PORT": "1003"}, 1003),
        ({"PORT": "1003"}, 1003),
    ],
)
def test_port_of_the_stronger_platform_wins(monkeypatch: pytest.MonkeyPatch, given: dict[str, str], port: int) -> None:
    """Vertex AI's port wins over SageMaker's, and both over PORT; with any of them we listen at all addresses."""
    for variable, text in given.items():
        monkeypatch.setenv(variable, text)
    assert read_settings().port == port
    assert read_settings().bind == f"0.0.0.0:{port}"


@pytest.mark.parametrize("host", ["[::]", "127.0.0.1"])
def test_host_moves_the_address_of_a_given_port(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    """Heroku's Fir wants IPv6: ANYPORT_HOST takes the place of 0.0.0.0."""
    monkeypatch.setenv("ANYPORT_HOST", host)
    monkeypatch.setenv("PORT", "8001")
    assert read_settings().bind == f"{host}:8001"


@pytest.mark.parametrize(("grace_s", "graceful_s"), [(30, 25), (60, 55), (5, 2), (3, 2), (1, 2)])
def test_2_10_gunicorn_ends_before_the_platform_kills(
    monkeypatch: pytest.MonkeyPatch, grace_s: int, graceful_s: int
) -> None:
    """gunicorn gives up on its workers before the platform does, as far as there is time."""
    monkeypatch.setenv("ANYPORT_STOP_GRACE_S", str(grace_s))
    assert read_settings().graceful_timeout_s == graceful_s


@pytest.mark.parametrize(("set_by", "workers"), [("heroku/python", None), ("me", 3), ("", 3)])
def test_buildpack_guess_is_passed_over(monkeypatch: pytest.MonkeyPatch, set_by: str, workers: int | None) -> None:
    """WEB_CONCURRENCY counts unless Heroku's buildpack says that it is its own guess."""
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    monkeypatch.setenv("WEB_CONCURRENCY_SET_BY", set_by)
    assert read_settings().workers == workers


def test_memory_of_ours_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our own variable for memory wins over App Engine's."""
    monkeypatch.setenv("ANYPORT_MEMORY_MIB", "512")
    monkeypatch.setenv("GAE_MEMORY_MB", "384")
    assert read_settings().memory_mib == 512


def test_3_16_policy_is_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may be loaded is what the variables say."""
    monkeypatch.setenv("ANYPORT_ALLOW_PICKLE", "false")
    monkeypatch.setenv("ANYPORT_SKOPS_TRUSTED", "a.B")
    monkeypatch.setenv("ANYPORT_VERSION_SKEW", "warn")
    policy = read_settings().policy
    assert (policy.pickle, policy.skops_types, policy.skew) == (False, frozenset({"a.B"}), "warn")


@pytest.mark.parametrize("name", COMPUTE_THREADS)
def test_2_13_compute_threads_are_limited(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Every thread pool gets one thread where the operator said nothing."""
    monkeypatch.setenv(name, "8")  # so that what was there before comes back
    monkeypatch.delenv(name)
    limit_compute_threads()
    assert os.environ[name] == "1"


@pytest.mark.parametrize("name", COMPUTE_THREADS)
def test_compute_threads_of_the_operator_stay(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A number of threads that the operator set is left alone."""
    monkeypatch.setenv(name, "8")
    limit_compute_threads()
    assert os.environ[name] == "8"


def test_prefix_is_on_every_variable_of_ours() -> None:
    """A variable is ours by its prefix, or one of those that the platforms set."""
    ours = {name for field in Settings.model_fields for name in variables(field) if name.startswith(PREFIX)}
    assert {variable for variable, *_ in READ} - ours == {
        *("AZUREML_MODEL_DIR", "GAE_MEMORY_MB", "AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT", "PORT"),
        *("AIP_PREDICT_ROUTE", "AIP_HEALTH_ROUTE", "AIP_DEPLOYED_MODEL_ID", "AIP_STORAGE_URI"),
        *("MODEL_DEPLOY_PREDICT_ENDPOINT", "MODEL_DEPLOY_HEALTH_ENDPOINT"),
        *("WEB_CONCURRENCY", "WEB_CONCURRENCY_SET_BY", "WEBSITES_CONTAINER_STOP_TIME_LIMIT"),
    }
