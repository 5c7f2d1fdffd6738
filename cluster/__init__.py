"""Where it runs: command line, placement, ledger, supervision, progress, reports."""
