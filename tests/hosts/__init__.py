"""A small network of machines on this one, with what a search on a cluster needs: Ray, PostgreSQL, S3 and MLflow.

All of it is the real thing, from ordinary packages. As root on Linux each machine has processes, network, name and
mounts of its own (`namespaces`); elsewhere they are plain processes on loopback (`loopback`). Tests and
`benchmarks.faults` use it.
"""
