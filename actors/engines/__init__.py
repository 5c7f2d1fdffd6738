"""Engines: the models behind the roles, their replicas, and the client that walkers ask through."""
