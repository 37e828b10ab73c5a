"""Fleets of pods in a Kubernetes cluster, whose Deployments, StatefulSets and DaemonSets are rolled."""
