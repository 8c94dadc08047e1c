"""Faults, numbered as in the list at the top of each module: bad files, hostile names, kills, full disks, damaged models."""
