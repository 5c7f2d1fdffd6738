"""What may be said: the domain language, the graph, checks, run files, records."""
