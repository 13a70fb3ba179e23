"""`python -m cramdemo`: the command line."""

from cramdemo.cli import main

raise SystemExit(main())
