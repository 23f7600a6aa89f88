"""How the service is put on a cluster: container images, Kustomize manifests and what generates them."""
