"""Checks of single files that one platform or two read, by those platforms' own rules."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from service.errors import PlatformError
from service.platforms.declared import EBEXTENSIONS, PROCFILE_LINE, load_yaml, options, web_services
from service.platforms.findings import Candidate, Finding, Mend, number

LINE = "gunicorn -c gunicorn.conf.py service.wsgi:app"
ALONE_S = (
    "docs.aws.amazon.com/elasticbeanstalk/latest/dg/platforms-linux-extend.html; heroku/cli load-foreman-procfile.js"
)
APP_YAML = {
    "app_engine_apis", "automatic_scaling", "basic_scaling", "build_env_variables", "default_expiration", "entrypoint",
    "env_variables", "error_handlers", "handlers", "inbound_services", "instance_class", "main", "manual_scaling",
    "runtime", "service", "service_account", "vpc_access_connector",
}  # fmt: skip
"""Keys that mean something for Python 3. Source: cloud.google.com/appengine/docs/standard/reference/app-yaml."""
RUNTIME = re.compile(r"python3(1[0-9])")
SCALING = {"automatic_scaling", "basic_scaling", "manual_scaling"}
INBOUND = {"mail", "mail_bounce", "rest", "warmup"}
RENDER = {
    "autoDeploy", "autoDeployTrigger", "branch", "buildCommand", "buildFilter", "disk", "domain", "domains", "envVars",
    "healthCheckPath", "initialDeployHook", "ipAllowList", "maintenanceMode", "maxShutdownDelaySeconds", "name",
    "numInstances", "plan", "preDeployCommand", "previewPlan", "previews", "region", "renderSubdomainPolicy", "repo",
    "rootDir", "runtime", "scaling", "startCommand", "type",
}  # fmt: skip
"""Keys of a web service in render.yaml. Source: render.com/schema/render.yaml.json."""
RENDER_SOURCE = "render.com/schema/render.yaml.json; render-oss/skills (2026-08-18)"
NAMESPACES = {
    "aws:elasticbeanstalk:application:environment": None,
    "aws:elasticbeanstalk:application:environmentsecrets": None,
    "aws:elasticbeanstalk:application": {"Application Healthcheck URL"},
    "aws:elasticbeanstalk:environment:process:default": {
        "HealthCheckPath", "MatcherHTTPCode", "HealthCheckInterval", "HealthCheckTimeout", "HealthyThresholdCount",
        "UnhealthyThresholdCount", "DeregistrationDelay", "Port", "Protocol", "StickinessEnabled",
    },
    "aws:elasticbeanstalk:environment": {"EnvironmentType", "LoadBalancerType", "ServiceRole", "LoadBalancerIsShared"},
    "aws:elasticbeanstalk:environment:proxy": {"ProxyServer"},
    "aws:elasticbeanstalk:environment:proxy:staticfiles": None,
    "aws:elasticbeanstalk:container:python": {"WSGIPath", "NumProcesses", "NumThreads"},
    "aws:elasticbeanstalk:cloudwatch:logs": {"StreamLogs", "DeleteOnTerminate", "RetentionInDays"},
    "aws:elasticbeanstalk:command": {
        "DeploymentPolicy", "Timeout", "BatchSizeType", "BatchSize", "IgnoreHealthCheck",
    },
    "aws:elasticbeanstalk:healthreporting:system": {"SystemType", "ConfigDocument", "EnhancedHealthAuthEnabled"},
    "aws:autoscaling:asg": {"MinSize", "MaxSize", "Cooldown", "Availability Zones"},
    "aws:autoscaling:launchconfiguration": {
        "InstanceType", "IamInstanceProfile", "EC2KeyName", "SecurityGroups", "RootVolumeSize",
    },
}  # fmt: skip
"""Namespaces and their options, None for any. Source: docs.aws.amazon.com command-options-general, -specific."""
MASKED = {"InstanceType", "IamInstanceProfile", "ServiceRole"}
"""Options that `eb create` always sets itself."""
EXTENSIONS = {
    "option_settings", "Resources", "Conditions", "Mappings", "Outputs", "Parameters", "packages", "sources", "files",
    "users", "groups", "commands", "container_commands", "services",
}  # fmt: skip
"""Keys of a file in .ebextensions. Source: docs.aws.amazon.com/elasticbeanstalk/latest/dg/ebextensions.html."""
ON_TOP = {"buildSources", "databases", "envVarGroups", "previews", "projects", "services", "ungrouped", "version"}
"""Keys of render.yaml itself. Source: render.com/schema/render.yaml.json."""
POLICIES = {"Rolling", "RollingWithAdditionalBatch", "Immutable", "TrafficSplitting"}
WSGI_PATH = re.compile(r"[\w.]+(:\w+)?")
BODY_LIMIT = re.compile(r"^\s*client_max_body_size\s+(\d+)([kmg]?);", re.MULTILINE | re.IGNORECASE)
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}


def procfile(candidate: Candidate) -> Iterator[Finding]:
    """Procfile is one line that Heroku and Elastic Beanstalk both read the same."""
    text = candidate.upload.text("Procfile")
    if text is None:
        return
    processes = [found[1] for line in text.splitlines() if (found := PROCFILE_LINE.fullmatch(line))]
    web = [line for line in text.splitlines() if line.startswith("web:")]
    mend = Mend("Procfile", f"{web[0]}\n", text) if web else None
    others = sorted(set(processes) - {"web"})
    if others:
        yield candidate.error(
            "procfile-process",
            f"Procfile has {others[0]}: beside web:",
            "Elastic Beanstalk runs it as a service that it starts again and again",
            "take the line away; run such things by other means",
            ALONE_S,
            mend,
        )
    if len(processes) != len(text.splitlines()) or processes.count("web") > 1:
        yield candidate.error(
            "procfile-line",
            "Procfile has a line that is a comment, empty, a second web:, or no `name: command`",
            "Elastic Beanstalk refuses the whole file",
            "leave the one line web: ...",
            ALONE_S,
            mend,
        )
    if "\r" in text:
        yield candidate.error(
            "procfile-line",
            "Procfile has Windows line ends",
            "the command ends in a character of its own",
            "write LF",
            ALONE_S,
            mend,
        )


def app_yaml(candidate: Candidate) -> Iterator[Finding]:
    """app.yaml has only keys and values that App Engine takes, and a limit to what it may cost."""
    try:
        document = load_yaml("app.yaml", candidate.upload.text("app.yaml") or "")
    except PlatformError:
        return  # `line_readable` says so
    if not isinstance(document, dict):
        return
    source = (
        "google.appengine.api.appinfo of gcloud 578.0.0; cloud.google.com/appengine/docs/standard/reference/app-yaml"
    )

    def wrong(what: str, fix: str) -> Finding:
        return candidate.error("app-yaml", what, "gcloud refuses it, or App Engine does not start", fix, source)

    for key in sorted(document.keys() - APP_YAML, key=str):
        yield wrong(f"app.yaml has the key {key!r}", "take it away")
    if not RUNTIME.fullmatch(str(document.get("runtime"))):
        yield wrong(f"app.yaml has runtime {document.get('runtime')!r}", "write python312")
    inbound = document.get("inbound_services") or []
    for service in inbound if isinstance(inbound, list) else [inbound]:
        if str(service) in INBOUND:
            continue
        yield wrong(f"app.yaml has the inbound service {service!r}", f"only {', '.join(sorted(INBOUND))} exist")
    if len(SCALING & document.keys()) > 1:
        yield wrong("app.yaml has more than one way of scaling", "keep automatic_scaling")
    scaling = document.get("automatic_scaling")
    scaling = scaling if isinstance(scaling, dict) else {}
    if not {"basic_scaling", "manual_scaling"} & document.keys() and "max_instances" not in scaling:
        yield candidate.error(
            "no-cost-limit",
            "app.yaml has no automatic_scaling.max_instances",
            "a flood of requests becomes a bill",
            "write max_instances: 4",
            source,
        )


def ebextensions(candidate: Candidate) -> Iterator[Finding]:
    """Every option of .ebextensions exists and has a value of its form, and a deployment leaves the service up."""
    policies = []
    for path in (file.path for file in candidate.upload.files if EBEXTENSIONS.fullmatch(file.path)):
        try:
            document = load_yaml(path, candidate.upload.text(path) or "")
            found = options(candidate.upload, path)
        except PlatformError as error:
            yield _refused(candidate, error.detail, f"mend {path}")
            continue
        for key in sorted(document.keys() - EXTENSIONS, key=str):
            yield _refused(candidate, f"{path} has the key {key!r}", "take it away, or mend its spelling")
        for namespace, values in found.items():
            policies += [str(value) for name, value in values.items() if name == "DeploymentPolicy"]
            yield from _options(candidate, path, namespace, values)
    if not set(policies[-1:]) & POLICIES:
        yield candidate.error(
            "in-place-deployment",
            "no file of .ebextensions sets a DeploymentPolicy other than AllAtOnce",
            "every deployment answers 502 until the service has started",
            "set it to RollingWithAdditionalBatch or Immutable in aws:elasticbeanstalk:command",
            "docs.aws.amazon.com/elasticbeanstalk/latest/dg/using-features.rolling-version-deploy.html",
        )


def _refused(candidate: Candidate, what: str, fix: str) -> Finding:
    source = "docs.aws.amazon.com/elasticbeanstalk/latest/dg/ebextensions.html"
    return candidate.error("ebextensions", what, "Elastic Beanstalk refuses the bundle", fix, source)


def _options(candidate: Candidate, path: str, namespace: str, values: dict[str, Any]) -> Iterator[Finding]:
    source = "docs.aws.amazon.com/elasticbeanstalk/latest/dg/command-options-general.html"
    known = NAMESPACES.get(namespace, set())
    for name in values:
        if name in MASKED:
            yield candidate.error(
                "masked-option",
                f"{path} sets {name}",
                "what `eb create` and the console set is stronger, so that it has no effect",
                f"say it there: {candidate.platform.sizes.change}",
                "docs.aws.amazon.com/elasticbeanstalk/latest/dg/command-options.html",
            )
        elif known is not None and name not in known:
            yield candidate.error(
                "unknown-option",
                f"{path} sets {name} in {namespace}",
                "Elastic Beanstalk refuses the deployment, or sets nothing",
                f"known are: {', '.join(sorted(known)) or 'no options of such a namespace'}",
                source,
            )
    if values.get("EnvironmentType") == "SingleInstance" and candidate.environment().get("ANYPORT_CLIENT_HOPS") == "2":
        yield candidate.error(
            "proxy-trust",
            f"{path} asks for one instance without a balancer, and ANYPORT_CLIENT_HOPS counts the balancer",
            "a client can make up the address that is logged for it",
            'write ANYPORT_CLIENT_HOPS: "1"',
            candidate.platform.traffic.source,
        )
    wsgi_path = values.get("WSGIPath")
    if wsgi_path is not None and (not WSGI_PATH.fullmatch(str(wsgi_path)) or str(wsgi_path).endswith(".py")):
        yield candidate.error(
            "wsgi-path",
            f"{path} sets WSGIPath to {wsgi_path!r}",
            "it is a module and a name, not a file; and Procfile wins over it",
            "take it away, or write service.wsgi:application",
            source,
        )


def nginx_snippets(candidate: Candidate) -> Iterator[Finding]:
    """nginx lets through every body that the service takes."""
    paths = [file.path for file in candidate.upload.files if re.fullmatch(r"\.platform/nginx/.*\.conf", file.path)]
    found = [BODY_LIMIT.search(candidate.upload.text(path) or "") for path in paths]
    limits = [int(match[1]) * UNITS[match[2].lower()] or math.inf for match in found if match]  # 0 is no limit
    taken = number(candidate.environment().get("ANYPORT_MAX_BODY_BYTES"), 4 * 2**20)
    if not limits or min(limits) < taken:
        told = f"{min(limits):.0f} bytes" if limits else "1 MiB, which is nginx's own limit"
        yield candidate.error(
            "nginx-body-limit",
            f"nginx takes bodies up to {told}, and the service up to {taken:.0f}",
            "larger ones get nginx's own 413, as HTML",
            "write client_max_body_size into .platform/nginx/conf.d/anyport.conf, a little above the service's limit",
            "nginx.org/en/docs/http/ngx_http_core_module.html",
        )


def startup_file(candidate: Candidate) -> Iterator[Finding]:
    """startup.txt is one line that begins with exec."""
    text = candidate.upload.text("startup.txt")
    if not text:
        return
    lines = text.splitlines()
    source = "Azure-App-Service/ImageBuilder init_container.sh; microsoft/Oryx fsvalidation.go"

    def wrong(what: str, why: str, good: str) -> Finding:
        mend = Mend("startup.txt", f"{good}\n", text)
        return candidate.error("startup-file", what, why, f"make the file the one line {good!r}", source, mend)

    commands = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    line = commands[0].strip() if commands and "'" not in commands[0] else LINE
    line = line if line.startswith("exec ") else f"exec {line}"
    if len(lines) > 1 or lines[0].lstrip().startswith("#") or "\r" in text:
        yield wrong("startup.txt has more than its one line", "Azure reads the first line alone, a comment too", line)
    elif "'" in lines[0]:
        yield wrong("startup.txt has a single quote", "Azure puts the line into single quotes", line)
    elif not lines[0].startswith("exec "):
        why = "a shell stays process 1 and swallows SIGTERM, so that requests are lost with each deployment"
        yield wrong("startup.txt does not begin with exec", why, line)


def wsgi_guess(candidate: Candidate) -> Iterator[Finding]:
    """service/wsgi.py is there with `application`, which Azure runs where nobody set the startup file."""
    text = candidate.upload.text("service/wsgi.py")
    if text is None or not re.search(r"^(app = )?application\b.*=", text, re.MULTILINE):
        yield candidate.error(
            "no-application",
            "service/wsgi.py does not define `application`",
            "where nobody sets the startup file, Azure runs gunicorn with service.wsgi, which looks for that name",
            "write `app = application = create_app(settings)`",
            "microsoft/Oryx startupscriptgenerator python/frameworks.go",
        )


def render_yaml(candidate: Candidate) -> Iterator[Finding]:
    """render.yaml has only keys that Render takes, with an address and a Python in full."""
    try:
        document = load_yaml("render.yaml", candidate.upload.text("render.yaml") or "")
    except PlatformError:
        return  # `line_readable` says so
    for key in sorted(document.keys() - ON_TOP, key=str) if isinstance(document, dict) else ():
        yield _no_blueprint(candidate, f"render.yaml has the key {key!r}", "take it away")
    for service in web_services(document):
        for key in sorted(service.keys() - RENDER, key=str):
            yield _no_blueprint(candidate, f"render.yaml has the key {key!r}", "take it away")
        variables = service.get("envVars") or ()
        for item in variables if isinstance(variables, list) else ():
            yield from _render_variable(candidate, item)


def _no_blueprint(candidate: Candidate, what: str, fix: str) -> Finding:
    return candidate.error("render-yaml", what, "Render refuses the blueprint", fix, RENDER_SOURCE)


def _render_variable(candidate: Candidate, item: Any) -> Iterator[Finding]:
    if not isinstance(item, dict):
        yield _no_blueprint(candidate, f"render.yaml has the variable {item!r}", "write key: and value:")
        return
    name, value = item.get("key"), item.get("value")
    if value is not None and not isinstance(value, str):
        yield _no_blueprint(candidate, f"the value of {name} in render.yaml is not text", "put it in quotes")
    if name == "PYTHON_VERSION" and not re.fullmatch(r"3\.\d+\.\d+", str(value)):
        yield candidate.error(
            "python-version-value",
            f"PYTHON_VERSION is {value!r}",
            "Render wants it in full and ends the build",
            'write "3.12.12"',
            RENDER_SOURCE,
        )


def bytecode(candidate: Candidate) -> Iterator[Finding]:
    """The build compiles the service's modules where what a start compiles is lost."""
    build = candidate.platform.build
    if candidate.readable() and build.step not in candidate.declared.build.script:
        yield candidate.warning(
            "not-compiled",
            f"{build.place} does not run `{build.step}`",
            "every start compiles the service's modules again, and the first answer takes up to a fifth longer",
            f"write that line into {build.place}",
            build.source,
        )


def wsgi_file(candidate: Candidate) -> Iterator[Finding]:
    """The WSGI file binds no port: the platform has its own server."""
    text = candidate.upload.text(candidate.platform.start.file) or ""
    if re.search(r"\.run\(", text):
        yield candidate.error(
            "own-server",
            f"{candidate.platform.start.file} starts a server",
            "the platform's own server never gets an answer: 504",
            "take app.run() away",
            "pythonanywhere/help_pages Flask504Error.md",
        )
