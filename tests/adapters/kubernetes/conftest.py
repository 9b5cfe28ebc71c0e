"""What tests of Kubernetes' drivers are given."""

from tests.kubernetes.bed import control_plane, kubelet

__all__ = ["control_plane", "kubelet"]
