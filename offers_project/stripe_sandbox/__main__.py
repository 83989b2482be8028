"""`python -m offers_project.stripe_sandbox`: see `server.main` for the options."""

from .server import main

raise SystemExit(main())
