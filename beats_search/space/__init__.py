"""Space: a YAML file in, plans with open knobs out."""
