"""``python -m pyneuro``: the command line."""

from pyneuro.cli import main

raise SystemExit(main())
