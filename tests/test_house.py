"""The plan of the house (docs/architecture.md) holds: imports, pure rooms, generated docs."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from tests.kit import api_docs
from tests.kit.sources import nodes_of, tree_of
from watchout.common import home_files

ROOT = Path(__file__).parent.parent
PACKAGES = ("common", "identity", "gateway", "router", "mlbridge", "ctl", "sdk/python")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
PURE = (
    "common/process/about.py",
    "common/alerts/unconfirmed.py",
    "common/alerts/model.py",
    "common/bus/peer_queue.py",
    "common/errors.py",
    "common/home_files.py",
    "common/media/frames.py",
    "common/toolbox/bounded_queue.py",
    "common/toolbox/budget.py",
    "common/toolbox/gateway_address.py",
    "common/toolbox/globs.py",
    "common/toolbox/http_bounds.py",
    "common/toolbox/json_words.py",
    "common/toolbox/retry.py",
    "common/process/restarts.py",
    "common/bus/key_value.py",
    "common/bus/membership.py",
    "common/bus/transport.py",
    "common/bus/frames.py",
    "common/bus/nats/denials.py",
    "common/bus/nats/parts.py",
    "common/bus/nats/sentences.py",
    "common/bus/nats/subjects.py",
    "common/bus/messages/envelope.py",
    "common/bus/messages/fields.py",
    "common/bus/messages/from_member.py",
    "common/bus/messages/from_router.py",
    "common/bus/messages/replies.py",
    "common/settings/misspelled.py",
    "common/media/rate.py",
    "common/media/picture_size.py",
    "common/schemas.py",
    "common/settings/bus_servers.py",
    "common/settings/cross_checks.py",
    "common/settings/docs.py",
    "common/settings/ml_url.py",
    "common/ml_targets/declaration.py",
    "common/ml_targets/docs.py",
    "mlbridge/targets/accepted.py",
    "mlbridge/targets/http_response.py",
    "common/ml_targets/kinds.py",
    "common/ml_targets/sentinel.py",
    "common/media/codecs.py",
    "common/media/drop_policy.py",
    "common/settings/spec.py",
    "common/settings/table.py",
    "common/settings/url_parsers.py",
    "common/media/held_frames.py",
    "common/alerts/webhook_signature.py",
    "common/bus/credit.py",
    "common/bus/zeromq/zmtp.py",
    "ctl/backup/contents.py",
    "ctl/capacity/model.py",
    "ctl/capacity/sentences.py",
    "ctl/capacity/tables.py",
    "ctl/reachable.py",
    "ctl/sources/addresses.py",
    "ctl/doctor/findings.py",
    "ctl/doctor/scrubbing.py",
    "ctl/doctor/setting_sources.py",
    "ctl/ml/conformance.py",
    "ctl/ml/drawing.py",
    "ctl/ml/pictures.py",
    "ctl/ml/report.py",
    "ctl/rehearse/even_samples.py",
    "ctl/rehearse/explained.py",
    "ctl/rehearse/figures.py",
    "ctl/rehearse/growth.py",
    "ctl/rehearse/memory.py",
    "ctl/rehearse/ml_alerts.py",
    "ctl/rehearse/objectives.py",
    "ctl/rehearse/page.py",
    "ctl/rehearse/pictures.py",
    "ctl/rehearse/plan.py",
    "ctl/rehearse/result.py",
    "ctl/rehearse/soak_result.py",
    "ctl/rehearse/svg.py",
    "ctl/rehearse/text.py",
    "gateway/authorization.py",
    "gateway/requests/addresses.py",
    "gateway/http/caller.py",
    "gateway/http/conditional.py",
    "gateway/client/client_socket.py",
    "gateway/error_response.py",
    "gateway/listen/head.py",
    "gateway/client/commands.py",
    "gateway/client/alert_replies.py",
    "gateway/client/session_replies.py",
    "gateway/client/asked_replies.py",
    "gateway/client/publishing_replies.py",
    "gateway/client/subscribing_replies.py",
    "router/alerts/completeness.py",
    "router/streams/infos.py",
    "gateway/client/error_replies.py",
    "gateway/client/refused_message.py",
    "gateway/client/unread_text.py",
    "gateway/silence.py",
    "gateway/client/message_assembler.py",
    "gateway/client/handshake.py",
    "gateway/client/first_message.py",
    "gateway/client/deflate.py",
    "gateway/hub/demand.py",
    "gateway/http/prometheus.py",
    "gateway/hub/registry.py",
    "gateway/hub/delivery.py",
    "gateway/hub/newest_frames.py",
    "gateway/hub/notices.py",
    "gateway/hub/reports.py",
    "gateway/hub/streams.py",
    "gateway/hub/subscription.py",
    "gateway/hub/waiting_frames.py",
    "gateway/client/frame_reader.py",
    "gateway/hub/outbound_queue.py",
    "gateway/quotas.py",
    "gateway/requests/origins.py",
    "gateway/fastpath.py",
    "gateway/http/mjpeg_parts.py",
    "gateway/http/negotiation.py",
    "gateway/progress.py",
    "gateway/model.py",
    "gateway/presence.py",
    "gateway/client/protocol.py",
    "gateway/http/webhook_requests.py",
    "gateway/wire.py",
    "identity/caller.py",
    "identity/sources/claims.py",
    "identity/sources/introspection_claims.py",
    "identity/sources/jwt_claims.py",
    "identity/sources/key_cache.py",
    "identity/credentials.py",
    "identity/sources/keys.py",
    "identity/recently_verified.py",
    "identity/schema/catalogue.py",
    "identity/schema/dialects.py",
    "identity/schema/key_forms.py",
    "identity/schema/plan.py",
    "identity/schema/rows.py",
    "common/toolbox/outage.py",
    "mlbridge/alerts.py",
    "mlbridge/targets/address.py",
    "mlbridge/targets/bodies.py",
    "mlbridge/targets/results.py",
    "mlbridge/breaker.py",
    "mlbridge/cooldown.py",
    "mlbridge/failover.py",
    "mlbridge/concurrency_limit.py",
    "mlbridge/coverage.py",
    "mlbridge/shown_frames.py",
    "mlbridge/scheduler.py",
    "mlbridge/refusals.py",
    "mlbridge/service_outage.py",
    "mlbridge/standstill.py",
    "mlbridge/waiting_frames.py",
    "mlbridge/requests_in_flight.py",
    "mlbridge/turn_queues.py",
    "mlbridge/commands.py",
    "router/alerts/ids.py",
    "router/alerts/log.py",
    "router/alerts/recent.py",
    "router/alerts/replay.py",
    "router/bounded_store.py",
    "router/webhook/deliveries.py",
    "router/webhook/egress.py",
    "router/members.py",
    "router/startup_hold.py",
    "router/record_store.py",
    "router/slots/commands.py",
    "router/slots/lease.py",
    "router/slots/report.py",
    "router/slots/slot_state.py",
    "router/stats.py",
    "router/streams/claims.py",
    "router/streams/interests.py",
    "router/streams/ownership.py",
    "router/streams/registry.py",
    "router/streams/routing.py",
    "router/streams/snapshots.py",
    "router/streams/stream.py",
    "router/streams/table.py",
    "router/streams/unfinished.py",
    "common/bus/reply_records.py",
    "common/bus/link_rates.py",
    "common/bus/slot_entries.py",
    "ctl/cluster/facts.py",
    "ctl/cluster/missing.py",
    "ctl/cluster/picture.py",
    "ctl/cluster/view.py",
    "ctl/tables.py",
    "common/metric_names.py",
    "common/reservations.py",
    "sdk/python/client/camera_core.py",
    "sdk/python/client/commands.py",
    "sdk/python/client/connection_core.py",
    "sdk/python/client/connection_parts.py",
    "sdk/python/client/errors.py",
    "sdk/python/client/inbox.py",
    "sdk/python/client/viewer_core.py",
    "sdk/python/ml/results.py",
    "sdk/python/ml/shown_frame.py",
)
#: What others call: its docstrings name every parameter, result and exception (`tests.kit.api_docs`).
API = (
    "common/bus",
    "gateway/client/asked_replies.py",
    "gateway/client/commands.py",
    "gateway/client/protocol.py",
    "gateway/client/publishing_replies.py",
    "gateway/client/subscribing_replies.py",
    "identity/caller.py",
    "identity/sources",
    "mlbridge/targets",
    "sdk/python",
)
EDGES = {"asyncio", "socket", "zmq", "time", "random", "secrets", "aiohttp", "asyncpg", "aiosqlite", "sqlite3", "os"}


@functools.cache
def imports_of(path: Path) -> set[str]:
    """What a file imports, modules and names; not to be changed."""
    found: set[str] = set()
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def among(of: Callable[[Path], Iterable[object]], paths: Iterable[Path] = MODULES) -> dict[str, list[object]]:
    """What `of` objects to in each module, without those to which it objects nothing."""
    return {relative(path): found for path in paths if (found := list(of(path)))}


def test_a_module_says_what_its_role_is() -> None:
    assert [relative(path) for path in MODULES if not ast.get_docstring(tree_of(path))] == []


def wrong_floors(path: Path) -> set[str]:
    """The packages that a module must not import and does."""
    own = module_of(path).split(".")[1]
    tops = {name.split(".")[1] for name in imports_of(path) if name.startswith("watchout.")}
    below = {"common", "identity"} if own in ("gateway", "ctl") else {"common"}
    if own == "ctl":
        below |= {"client"}  # publish, watch and alert are programs on the SDK
    if relative(path).startswith(("ctl/ml/", "ctl/commands/ml.py")):
        below |= {"mlbridge"}  # a dry run shows pictures as the bridge does: docs/architecture.md says why
    return tops - {own} - below


def test_imports_go_down_and_never_sideways() -> None:
    assert among(wrong_floors) == {}


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or through others; each group sorted."""
    reached: dict[str, set[str]] = {}
    for module in imports:
        found: set[str] = set()
        todo = [module]
        while todo:
            for imported in imports.get(todo.pop(), set()) - found:
                found.add(imported)
                todo.append(imported)
        reached[module] = found
    groups = {tuple(sorted(m for m in reached[own] if own in reached.get(m, ()))) for own in imports}
    return sorted([list(group) for group in groups if group])


def module_of(path: Path) -> str:
    """Return the import path of a file, `watchout.gateway.app` for gateway/app.py."""
    parts = Path(relative(path).removeprefix("sdk/python/")).with_suffix("").parts
    return ".".join(("watchout", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def imported_modules() -> dict[str, set[str]]:
    """Return what each module of ours imports of ours, wherever the import stands, also under `TYPE_CHECKING`.

    `from package import name` is an import of the module `package.name` where there is one, else of the package.
    """
    ours = {module_of(path): path for path in MODULES}
    found: dict[str, set[str]] = {}
    for module, path in ours.items():
        found[module] = names = set()
        for node in nodes_of(path):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names} & set(ours)
            elif isinstance(node, ast.ImportFrom) and node.module:
                full = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= full & set(ours)
                if not full <= set(ours):
                    names |= {node.module} & set(ours)
    return found


def test_no_import_circle() -> None:
    """Each module can be read after those it imports; imports for type checkers count as well."""
    assert circles(imported_modules()) == []


def classes_of(path: Path) -> list[ast.ClassDef]:
    return [node for node in nodes_of(path) if isinstance(node, ast.ClassDef)]


def test_no_two_public_classes_have_one_name() -> None:
    """One word stands for one thing: docs/architecture.md, glossary.

    Each SDK is counted by itself: a `Frame` is what its users see of a frame.
    """
    count = Counter(
        (relative(path).rpartition("/")[0] if relative(path).startswith("sdk/") else "", node.name)
        for path in MODULES
        for node in classes_of(path)
        if not node.name.startswith("_")
    )
    assert {name for name, times in count.items() if times > 1} == set()


def test_every_class_says_what_it_is() -> None:
    assert among(lambda path: [node.name for node in classes_of(path) if not ast.get_docstring(node)]) == {}


def files_of_the_api() -> list[Path]:
    """Return the modules of `API`; folders that are not there yet have none."""
    found = [ROOT / name for name in API]
    return sorted(file for path in found for file in (path.rglob("*.py") if path.is_dir() else [path]) if file.exists())


def test_what_others_call_has_its_parameters_results_and_exceptions_documented() -> None:
    assert among(lambda path: api_docs.faults(tree_of(path), documented_methods()), files_of_the_api()) == {}


@functools.cache
def documented_methods() -> dict[str, list[str]]:
    """Return the documented methods of all Protocols and abstract classes."""
    return api_docs.documented_methods([tree_of(path) for path in {*MODULES, *files_of_the_api()}])


def test_the_search_for_circles_finds_one() -> None:
    imports = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"e"}}
    assert circles(imports) == [["b", "c"], ["e"]]


def test_every_import_of_ours_is_of_the_namespace() -> None:
    """A customer's own `common/` or `router/` must not be taken for ours."""
    ours = {*PACKAGES, "client", "ml", "sdk"}
    assert among(lambda path: {name.split(".")[0] for name in imports_of(path)} & ours) == {}


def test_only_the_bus_knows_zeromq() -> None:
    knows = {
        "common/bus/zeromq/accept_guard.py",
        "common/bus/zeromq/control.py",
        "common/bus/zeromq/local.py",
        "common/bus/zeromq/curve.py",
        "common/bus/zeromq/tcp.py",
        "common/bus/zeromq/tcp_member.py",
        "common/bus/zeromq/tcp_router.py",
        "mlbridge/targets/zeromq.py",
    }
    imports = among(lambda path: [name for name in imports_of(path) if name.split(".")[0] == "zmq"])
    assert set(imports) - knows == set()


def test_only_the_bus_over_nats_its_target_and_their_client_know_nats() -> None:
    imports = among(lambda path: [name for name in imports_of(path) if name.split(".")[0] == "nats"])
    elsewhere = {name for name in imports if not name.startswith("common/bus/nats/")}
    assert elsewhere == {"common/toolbox/nats_client.py", "mlbridge/targets/nats.py"}


def test_a_pure_module_has_no_socket_clock_or_random() -> None:
    edges = among(lambda path: {module.split(".")[0] for module in imports_of(path)} & EDGES)
    assert {name: edges[name] for name in PURE if name in edges} == {}
    assert set(PURE) <= {relative(path) for path in MODULES}


#: Names of files in the home that are no word of their own: a literal of the same text elsewhere is a repetition.
HOME_FILES = {
    value
    for name, value in vars(home_files).items()
    if name.isupper() and isinstance(value, str) and ("." in value or value.endswith("-"))
}


def names_of_home_files(path: Path) -> set[str]:
    """The names of files in the home that a module has in quotes."""
    literals = {n.value for n in nodes_of(path) if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return set() if path.name == "home_files.py" else literals & HOME_FILES


def test_each_name_of_a_file_in_the_home_is_written_in_one_place_only() -> None:
    assert {"frames.in", "router.lock", "listen.lock", "sessions.db", "reservations.db", "stream.key"} <= HOME_FILES
    assert among(names_of_home_files) == {}


def emptied_from_the_front(path: Path) -> list[str]:
    """Attributes of which the first entry is taken, and that are no `OrderedDict`."""
    text = path.read_text()
    taken = set(re.findall(r"next\(iter\(self\.(_\w+)(?:\.(?:values|items)\(\))?\)\)", text))
    return [name for name in taken if not re.search(rf"self\.{name}: OrderedDict\[", text)]


def test_what_loses_its_oldest_is_an_ordered_dict() -> None:
    """The first entry of a plain dict is found by passing over all that were deleted in front of it."""
    assert among(emptied_from_the_front) == {}


def build() -> object:
    spec = importlib.util.spec_from_file_location("build", ROOT / "docs/build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_bus_page_has_every_message_as_the_code_has_it() -> None:
    page = (ROOT / "docs/bus.md").read_text()
    assert build().with_messages(page) == page  # type: ignore[attr-defined]


def test_the_page_of_modules_has_every_module_as_its_docstring_says() -> None:
    page = (ROOT / "docs/modules.md").read_text()
    assert build().render_modules() == page  # type: ignore[attr-defined]


def test_the_page_of_metrics_is_what_is_declared() -> None:
    assert (ROOT / "docs/metrics.md").read_text() == build().render_metrics()  # type: ignore[attr-defined]


def test_the_page_of_capacity_has_what_the_model_gives() -> None:
    page = (ROOT / "docs/capacity.md").read_text()
    assert build().with_capacity(page) == page  # type: ignore[attr-defined]


def test_the_settings_page_is_what_the_table_says() -> None:
    from watchout.common import settings

    assert (ROOT / "docs/settings.md").read_text() == settings.render_markdown()


def test_the_pages_of_ml_services_have_every_kind_as_it_is_declared() -> None:
    for name, made_anew in (("targets.md", "with_kinds"), ("ml-team.md", "with_ways")):
        page = (ROOT / "docs" / name).read_text()
        assert getattr(build(), made_anew)(page) == page


def test_every_test_that_the_security_page_names_is_there() -> None:
    page = (ROOT / "docs/security.md").read_text()
    named = set(re.findall(r"`(test_\w+)`", page))
    there = {
        name
        for path in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert named - there == set()
    assert len(named) > 30


def test_every_setting_that_the_security_page_names_is_there() -> None:
    from watchout.common import settings
    from watchout.common.errors import ErrorCode

    page = (ROOT / "docs/security.md").read_text().partition("<!-- credentials")[0]
    known = {spec.env for _, spec, _ in settings.table()} | {"DELETE", "LISTEN"} | {str(code) for code in ErrorCode}
    named = set(re.findall(r"`([A-Z][A-Z_]{3,})`", page))
    assert {name for name in named - known if not any(name in k for k in known)} == set()


def test_the_security_page_has_the_forms_of_a_credential_as_they_are_tested() -> None:
    from tests.e2e import test_credentials

    page = (ROOT / "docs/security.md").read_text()
    assert test_credentials.render_markdown() in page


def _calls(nodes: Iterable[ast.AST], *names: str) -> list[ast.Call]:
    return [
        node
        for node in nodes
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in names
    ]


#: Functions that set a timer for themselves: only after a failure, which they catch.
OWN_TIMERS: dict[str, set[str]] = {"common/bus/zeromq/control.py": {"read"}}
#: Endless loops with a pause that the supervisor keeps by a longer way (`gateway.app`,
#: `common.bus.nats.connection`), or that a deadline ends.
OWN_LOOPS: dict[str, set[str]] = {
    "common/bus/client.py": {"request"},
    "common/bus/nats/homeward.py": {"run"},
    "common/bus/zeromq/frame_sockets.py": {"next_connection"},
    "gateway/revalidation.py": {"check_changed"},
    "identity/sources/listen.py": {"run", "_listen"},
}


def unsupervised(path: Path) -> tuple[set[str], set[str]]:
    """The functions of a module that set a timer for themselves, and those with an endless loop that pauses."""
    nodes = nodes_of(path)
    kept = {
        argument.attr
        for call in _calls(nodes, "keep")
        for argument in call.args[:1]
        if isinstance(argument, ast.Attribute)
    }
    again, endless = set(), set()
    for function in [n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]:
        for call in _calls(ast.walk(function), "call_later", "call_at"):
            names = {getattr(argument, "attr", getattr(argument, "id", None)) for argument in call.args[1:2]}
            if function.name in names:
                again.add(function.name)
        for loop in [n for n in ast.walk(function) if isinstance(n, ast.While)]:
            endlessly = isinstance(loop.test, ast.Constant) and loop.test.value is True
            waits = isinstance(function, ast.AsyncFunctionDef) and _calls(ast.walk(loop), "sleep", "wait")
            if endlessly and waits and function.name not in kept:
                endless.add(function.name)
    return again, endless


def test_what_runs_again_and_again_runs_under_the_supervisor() -> None:
    """No function sets a timer for itself, and no endless loop has a pause, outside `common.supervisor`: an exception
    would end it for good. What `supervisor.keep` runs may loop.
    """
    servers = [path for path in MODULES if not relative(path).startswith(("ctl/", "common/supervisor.py"))]
    found = {relative(path): unsupervised(path) for path in servers}
    assert {name: again for name, (again, _) in found.items() if again} == OWN_TIMERS
    assert {name: endless for name, (_, endless) in found.items() if endless} == OWN_LOOPS


def test_every_metric_that_is_declared_is_counted() -> None:
    """Its constant is used somewhere else than in the declarations."""
    from watchout.common import metric_names

    constants = {name: value for name, value in vars(metric_names).items() if name.isupper() and isinstance(value, str)}
    used = {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for path in MODULES
        if relative(path) != "common/metric_names.py"
        for node in nodes_of(path)
        if isinstance(node, ast.Attribute | ast.Name)
    }
    by_reason = {name for name in constants if constants[name] in metric_names.FRAMES_DROPPED.values()}
    assert set(constants.values()) == set(metric_names.DECLARED)
    assert set(constants) - used - by_reason == set()


def metrics_in_quotes(path: Path) -> list[str]:
    """Where a module names a metric by a text."""
    quoted = [
        ast.unparse(call)
        for call in _calls(nodes_of(path), "count", "set")
        if ast.unparse(call.func).rpartition(".")[0].endswith("metrics")
        and call.args
        and isinstance(call.args[0], ast.Constant)
    ]
    quoted += [
        ast.unparse(node)
        for node in nodes_of(path)
        if isinstance(node, ast.Subscript)
        and ast.unparse(node.value).endswith("metrics.values")
        and isinstance(node.slice, ast.Constant)
    ]
    return quoted


def test_a_metric_is_counted_by_its_declaration() -> None:
    """A name in quotes is not checked against the declarations before it is counted for the first time."""
    assert among(metrics_in_quotes) == {}


def foreign_log_names(path: Path) -> set[str]:
    """The names under which a module logs that are not its own."""
    names = {call.args[0].value for call in _calls(nodes_of(path), "get") if ast.unparse(call.func) == "log.get"}  # type: ignore[attr-defined]
    return names - {module_of(path).removeprefix("watchout.")}


def test_the_lines_of_a_module_name_it_in_the_log() -> None:
    """Operators filter log lines by `module`: it is the module that wrote the line."""
    assert among(foreign_log_names) == {}


def test_every_call_on_the_way_of_a_frame_and_of_an_alert_is_there() -> None:
    """docs/architecture.md lists them; tests/e2e/test_ways.py compares their order with a real run."""
    from tests.kit.calls import resolve, ways

    assert len(ways()) == 2
    for names in ways().values():
        assert all(callable(resolve(name)) for process in names for name in process)


def test_every_package_is_installed() -> None:
    """A folder that pyproject.toml does not list is missing in the wheel."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {module_of(path.parent / "__init__.py") for path in MODULES}
    assert set(listed) == there
