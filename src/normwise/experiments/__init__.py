"""Runs with settings of their own: one network, an evaluation, a grid, the four papers."""
