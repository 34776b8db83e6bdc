"""Figures of merit: pure functions over arrays."""
