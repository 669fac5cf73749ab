"""One file per subcommand of `penstock`; `cli.py` registers them."""
