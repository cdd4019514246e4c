"""What preflight looks at: everywhere, and where a platform's facts name it. Each check is a function to findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from service.platforms.checks import descriptors, model, service, tree
from service.platforms.findings import Candidate, Finding

Check = Callable[[Candidate], Iterator[Finding]]

EVERYWHERE: tuple[Check, ...] = (
    service.line_readable,
    tree.requirements,
    tree.gunicorn_required,
    tree.uncommitted,
    tree.sizes,
    tree.secrets,
    tree.stale_facts,
    model.packages,
    model.libraries,
    model.python,
    model.memory,
    model.load_time,
    service.start_line,
    service.importable,
    service.answers,
    service.threads,
    service.open_before_fork,
    service.settings,
    service.deadlines,
    service.proxies,
)

WHEELS: Check = model.wheels
"""It asks the package index, so it is looked at only on request."""

CHECKS: dict[str, Check] = {
    "app-yaml": descriptors.app_yaml,
    "bytecode": descriptors.bytecode,
    "committed-environment": tree.committed_environment,
    "ebextensions": descriptors.ebextensions,
    "hooks-executable": tree.hooks_executable,
    "nginx-snippets": descriptors.nginx_snippets,
    "no-dockerfile": tree.no_dockerfile,
    "no-env-folders": tree.no_env_folders,
    "one-package-manager": tree.one_package_manager,
    "procfile": descriptors.procfile,
    "render-yaml": descriptors.render_yaml,
    "startup-file": descriptors.startup_file,
    "wsgi-file": descriptors.wsgi_file,
    "wsgi-guess": descriptors.wsgi_guess,
}
