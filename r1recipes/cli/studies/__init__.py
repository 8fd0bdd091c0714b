"""The commands of a study.

study   `sweep` and `study`     worker  `worker`, on any machine
"""
