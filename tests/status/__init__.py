"""Tests of the status: the board, the figures, who may see them, and how they are shown."""
