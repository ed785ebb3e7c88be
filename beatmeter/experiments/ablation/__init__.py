"""Ablations: a plan says which settings vary and with which seeds; every cell becomes a run, every plan a
table and a figure."""
