"""Takes this box's configuration from a control plane, and back again where it does harm."""
