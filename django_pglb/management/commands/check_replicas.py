"""`manage.py check_replicas`: can the replicas be read from, and if not, why?"""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentTypeError
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from django_pglb.conf import is_enabled, read, refuse
from django_pglb.health.collect import collect
from django_pglb.health.report import COULD_NOT_TELL, Report
from django_pglb.health.table import format_table
from django_pglb.references import engine_problems
from django_pglb.stores import look_at_store
from django_pglb.targets import cluster_targets

if TYPE_CHECKING:
    from django.core.management.base import CommandParser

    from django_pglb.core.config import ClusterConfig
    from django_pglb.health.target import Target

    Clusters = list[tuple[ClusterConfig, list[Target]]]

DEFAULT_WATCH_SECONDS = 2.0
CLEAR_SCREEN = "\x1b[2J\x1b[H"


class Command(BaseCommand):
    help = (
        "Look at every host of every cluster once and say whether the replicas can be read from."
        " Exit status: 0 all well, 1 some replica unusable, 2 no usable replica or no primary, 3 could not tell."
    )
    # It must answer when nothing else works; and a failed check exits 1, which here means something else.
    requires_system_checks: list[str] = []  # noqa: RUF012 - Django declares it this way

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> CommandParser:
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        # argparse exits 2 on wrong usage, which here means that no replica is usable.
        parser.error = partial(_wrong_usage, parser)  # type: ignore[method-assign]  # Django chooses the parser's class
        return parser

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--database", metavar="ALIAS", help="only the cluster that this alias belongs to")
        parser.add_argument("--format", choices=("table", "json"), default="table", help="table (default), or json for scripts")
        parser.add_argument(
            "--watch",
            nargs="?",
            type=_positive,
            const=DEFAULT_WATCH_SECONDS,
            metavar="SECONDS",
            help=f"look again every SECONDS (default {DEFAULT_WATCH_SECONDS:g}) until Ctrl-C",
        )
        parser.add_argument("--max-lag-seconds", type=_positive, metavar="N", help="instead of MAX_LAG_SECONDS of the settings")

    def handle(self, *args: Any, **options: Any) -> None:
        clusters = _clusters(options["database"], options["max_lag_seconds"])
        if options["watch"] is not None:
            self._watch(clusters, options["format"], options["watch"])
            return
        report = _look(clusters)
        self.stdout.write(_formatted(report, options["format"], indent=2))
        if report.status:
            sys.exit(report.status)

    def _watch(self, clusters: Clusters, wanted: str, seconds: float) -> None:
        try:
            while True:
                text = _formatted(_look(clusters), wanted, indent=None)
                self.stdout.write((CLEAR_SCREEN if self.stdout.isatty() else "") + text)
                self.stdout.flush()
                time.sleep(seconds)
        except KeyboardInterrupt:
            return


def _clusters(alias: str | None, max_lag_seconds: float | None) -> Clusters:
    """Return whom to look at. Raises `CommandError` where there is nobody."""
    try:
        found, problems = read()
        refuse(problems)
        # What is switched off is looked at all the same: people switch on when all is well.
        config = found.as_if_on()
        refuse(problem for cluster in config.clusters.values() for problem in engine_problems(cluster))
        if not config.clusters:
            raise CommandError("Nothing to check: PGLB names no cluster, so every read goes to the primary.", returncode=COULD_NOT_TELL)
        chosen = list(config.clusters.values()) if alias is None else [_cluster_of(alias, config.primary_of, config.clusters)]
        if max_lag_seconds is not None:
            chosen = [replace(cluster, max_lag_seconds=max_lag_seconds) for cluster in chosen]
        return [(cluster, cluster_targets(cluster)) for cluster in chosen]
    except ImproperlyConfigured as error:
        raise CommandError(str(error), returncode=COULD_NOT_TELL) from error


def _look(clusters: Clusters) -> Report:
    report = collect(clusters)
    looks = zip(report.clusters, clusters, strict=True)
    return Report(clusters=tuple(replace(found, store=look_at_store(cluster)) for found, (cluster, _) in looks), is_enabled=is_enabled())


def _cluster_of(alias: str, primary_of: dict[str, str], clusters: dict[str, ClusterConfig]) -> ClusterConfig:
    if alias not in primary_of:
        known = ", ".join(sorted(primary_of))
        raise CommandError(f"{alias!r} belongs to no cluster of PGLB; these do: {known}.", returncode=COULD_NOT_TELL)
    return clusters[primary_of[alias]]


def _formatted(report: Report, wanted: str, *, indent: int | None) -> str:
    return json.dumps(report.as_dict(), indent=indent) if wanted == "json" else format_table(report)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return number


def _wrong_usage(parser: CommandParser, message: str) -> NoReturn:
    if not parser.called_from_command_line:
        raise CommandError(f"Error: {message}", returncode=COULD_NOT_TELL)
    parser.print_usage(sys.stderr)
    parser.exit(COULD_NOT_TELL, f"{parser.prog}: error: {message}\n")
