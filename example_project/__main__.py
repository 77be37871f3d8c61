"""Starts the example: `python -m example_project`, or with `--check` its journey without a browser."""

from __future__ import annotations

import argparse
import signal
import sys

from django_pglb.testing import ClusterError

from .guestbook.people import PASSWORD, USERNAMES
from .journey import Journey
from .local import LocalSite, SiteFailed

MAX_PORT = 65535


def main() -> int:
    """Serve until Ctrl-C, or run the journey. Returns the exit status."""
    options = _parser().parse_args()
    # So that `with` cleans up whoever asks us to end; shells start background jobs with SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    print("Starting a primary, two replicas and Redis …", flush=True)
    try:
        with LocalSite(options.port) as site:
            return _check(site) if options.check else _serve(site)
    except KeyboardInterrupt:
        return 130
    except (ClusterError, SiteFailed, OSError) as error:
        print(f"The example did not start: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m example_project", description="A guestbook on a primary, two replicas and Redis.")
    parser.add_argument(
        "--check", action="store_true", help="go through the site without a browser; exit 0 if it keeps its promises, else 1"
    )
    parser.add_argument("--port", type=_port, help="where to serve on 127.0.0.1 (default: 8000 if it is free)")
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: 0 to {MAX_PORT}")
    return int(text)


def _check(site: LocalSite) -> int:
    is_well = Journey(site.url).run()
    print("All promises were kept." if is_well else "A promise was broken.", flush=True)
    return 0 if is_well else 1


def _serve(site: LocalSite) -> int:
    print(
        f"\nThe guestbook is open at {site.url}\n"
        f"Users: {' and '.join(USERNAMES)}, password: {PASSWORD}\n\n"
        f"To see the replicas from another terminal (add --watch to keep looking):\n\n  {site.command_line('check_replicas')}\n\n"
        "Ctrl-C ends everything.",
        flush=True,
    )
    try:
        site.wait()
    except KeyboardInterrupt:
        print("\nGoodbye.", flush=True)
        return 0
    print("The site has ended.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
