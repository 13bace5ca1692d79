"""The catalogue as Envoy's resources, and the discovery service that hands them out."""
