"""Linearizability: the problem that a history poses, searches for its solution, and explanations
and pictures of histories that have none. `checker.linearizable` is the checker.
"""
