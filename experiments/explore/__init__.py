"""Search of meshes for few exact cycles and a small area."""
