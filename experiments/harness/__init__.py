"""What all commands share: options, output directories, provenance, tracking."""
