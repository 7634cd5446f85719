"""Faults of all kinds under load: nobody hangs, nothing is missed. Each test tells its figures."""
