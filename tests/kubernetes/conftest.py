"""The fixtures of tests/kubernetes/bed.py, for the tests in this folder."""

from tests.kubernetes.bed import control_plane, kubelet

__all__ = ["control_plane", "kubelet"]
