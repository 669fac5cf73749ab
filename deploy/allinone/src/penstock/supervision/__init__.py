"""Keep a set of processes running: start in order, restart what dies, stop in order."""
