"""Hydra configuration: one YAML file per choice, with dataclass schemas in `conf.schema`."""
