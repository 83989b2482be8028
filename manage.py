#!/usr/bin/env python
"""Django's command line, and the two commands that run before there is a database to talk to."""

import os
import sys

# These write files from the code alone, so they work before anything is configured.
OFFLINE_COMMANDS = {"collectstatic", "help", "makemigrations", "spectacular", "state_diagram"}


def main(argv: list[str]) -> int:
    """Run one command; a set-up that is incomplete is one sentence on stderr and exit code 1."""
    command = argv[1] if len(argv) > 1 else "help"
    if command == "runlocal":
        from offers_project.local import runlocal

        return runlocal.main(argv[2:])
    if command == "stripe_sandbox":
        from offers_project.stripe_sandbox import server

        return server.main(argv[2:]) or 0

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "offers_project.settings")
    if command in OFFLINE_COMMANDS or {"--help", "-h", "--version"} & set(argv):
        os.environ.setdefault("OFFERS_OFFLINE", "1")

    # A migration or a count over all purchases may take longer than a request may.
    if command != "store_timeouts":  # which is about requests
        os.environ["STATEMENT_TIMEOUT_MS"] = "0"  # whatever a container's has for its requests

    import django
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import execute_from_command_line

    try:
        django.setup()
    except ImproperlyConfigured as error:
        sys.stderr.write(f"{error}\n")
        return 1
    try:
        execute_from_command_line(argv)
    finally:
        close_connection_pools()
    return 0


def close_connection_pools() -> None:
    """Let the pool's threads end: at the interpreter's exit they would be waited for in vain."""
    from django.db import connections

    for connection in connections.all(initialized_only=True):
        if connection.vendor == "postgresql":
            connection.close()
            connection.close_pool()


if __name__ == "__main__":
    sys.exit(main(sys.argv))
